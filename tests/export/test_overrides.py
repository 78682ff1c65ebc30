from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_networks import TINY

from stmask_deploy.config import CenternessOrder
from stmask_deploy.errors import InputError
from stmask_deploy.export.overrides import Overrides, parse_level, parse_numbers
from stmask_deploy.tracking_config import TrackingConfig

PLAIN = replace(TINY, kernel_shapes=((3, 3),) * 3, anchor_scales=(1.0, 2.0))


def test_nothing_given_changes_nothing() -> None:
    assert Overrides().apply(TINY) == TINY


def test_values_replace_what_tensors_cannot_show() -> None:
    config = Overrides(input_size=(100, 200), anchor_ratios=(1, 4, 0.25), anchor_scales=(1, 3),
                       temporal_level=0, roi_size=3, centerness_order=CenternessOrder.ANCHOR,
                       tracking=TrackingConfig("paper")).apply(PLAIN)
    assert config.input_size == (100, 200)
    assert config.anchor_shapes == ((3, 3), (6, 1.5), (1.5, 6)) and config.anchor_scales == (1, 3)
    assert config.temporal is not None and (config.temporal.level, config.temporal.roi_size) == (0, 3)
    assert config.centerness_order is CenternessOrder.ANCHOR and config.tracking == TrackingConfig("paper")


@pytest.mark.parametrize(("overrides", "message"), [
    (Overrides(anchor_ratios=(1, 2, 3)), "without FCA"),
    (Overrides(anchor_scales=(1, 2)), "predicts 1 anchor per"),
    (Overrides(temporal_level=5), "temporal.level"),
    (Overrides(roi_size=0), "at least 1"),
    (Overrides(input_size=(16, 640)), "sides of input_size must be 32 to 8192"),
])
def test_values_that_do_not_fit(overrides: Overrides, message: str) -> None:
    with pytest.raises(InputError, match=message):
        overrides.apply(TINY)


def test_ratios_of_a_single_kernel() -> None:
    one = replace(TINY, kernel_shapes=((3, 3),), anchor_shapes=((3, 3),))
    assert Overrides(anchor_ratios=(4,)).apply(one).anchor_shapes == ((6, 1.5),)
    with pytest.raises(InputError, match="1 kernel needs one anchor ratio, got 3"):
        Overrides(anchor_ratios=(1, 2, 7)).apply(one)


def test_temporal_values_need_a_temporal_network() -> None:
    with pytest.raises(InputError, match="no temporal network"):
        Overrides(roi_size=3).apply(replace(TINY, temporal=None))


def test_a_tracker_that_propagates_needs_a_temporal_network() -> None:
    plain = replace(TINY, temporal=None)
    with pytest.raises(InputError, match="--tracking paper: this checkpoint has no temporal network"):
        Overrides(tracking=TrackingConfig("paper")).apply(plain)
    frame = TrackingConfig("frame", new_object_score=1.1)
    assert Overrides(tracking=frame).apply(plain).own_tracking == frame
    with pytest.raises(InputError, match="must propagate"):
        Overrides(tracking=frame).apply(TINY)


def test_parsing() -> None:
    assert parse_numbers("1,0.5, 2") == (1, 0.5, 2) and parse_level("P3") == 0 and parse_level("p4") == 1


@pytest.mark.parametrize(("parse", "text"), [
    (parse_numbers, "1,,2"), (parse_numbers, "0,1"),
    (parse_numbers, "nan"), (parse_level, "4"), (parse_level, "P2"), (parse_level, "P44")])
def test_text_that_cannot_be_read(parse: object, text: str) -> None:
    with pytest.raises(InputError):
        parse(text)  # type: ignore[operator]
