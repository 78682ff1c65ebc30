"""`ModelConfig`: derived values, names of variants, JSON, and what it refuses."""
from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from stmask_deploy.config import Calibration, CenternessOrder, ModelConfig, TemporalConfig
from stmask_deploy.errors import InputError
from stmask_deploy.geometry import make_anchors
from stmask_deploy.tracking_config import TrackingConfig

CONFIG = ModelConfig(class_names=("cat", "dog"))
R50_DCN = ((1, 0), (1, 2), (2, 0), (2, 2), (2, 4), (3, 0), (3, 2))


def test_derived_values() -> None:
    assert (CONFIG.num_classes, CONFIG.num_levels, CONFIG.anchors_per_cell) == (3, 5, 3)
    assert replace(CONFIG, anchor_scales=(1.0, 1.5)).anchors_per_cell == 6


@pytest.mark.parametrize("size, padded", [((360, 640), (384, 640)), ((32, 32), (32, 32)), ((33, 65), (64, 96))])
def test_padded_size(size: tuple[int, int], padded: tuple[int, int]) -> None:
    assert replace(CONFIG, input_size=size).padded_size == padded


@pytest.mark.parametrize("size, levels", [
    ((360, 640), ((48, 80), (24, 40), (12, 20), (6, 10), (3, 5))),
    ((32, 96), ((4, 12), (2, 6), (1, 3), (1, 2), (1, 1))),  # halves are rounded up
])
def test_level_sizes(size: tuple[int, int], levels: tuple[tuple[int, int], ...]) -> None:
    config = replace(CONFIG, input_size=size)
    assert config.level_sizes == levels
    assert replace(config, num_downsamples=0).level_sizes == levels[:3]


@pytest.mark.parametrize("scales, count", [((1.0,), 15_345), ((1.0, 1.26, 1.59), 3 * 15_345)])
def test_number_of_anchors(scales: tuple[float, ...], count: int) -> None:
    config = replace(CONFIG, anchor_scales=scales)
    assert config.num_anchors == count == len(make_anchors(config.level_sizes, config.anchor_shapes, scales))


@pytest.mark.parametrize("changes, name", [
    ({}, "STMask R50 FCA TF"),
    ({"temporal": None}, "STMask R50 FCA"),
    ({"depths": (3, 4, 23, 3), "deformable_blocks": ((1, 0),)}, "STMask R101-DCN FCA TF"),
    ({"depths": (3, 8, 36, 3)}, "STMask R152 FCA TF"),
    ({"depths": (1, 1, 1, 1)}, "STMask R14 FCA TF"),
    ({"deformable_blocks": R50_DCN, "class_calibration": Calibration.ADAPTIVE},
     "STMask R50-DCN FCA FCB(ada: class) TF"),
    ({"class_calibration": Calibration.ALIGNED, "mask_calibration": Calibration.ALIGNED,
      "track_calibration": Calibration.ALIGNED}, "STMask R50 FCA FCB(ali: class+mask+track) TF"),
    ({"class_calibration": Calibration.ALIGNED, "mask_calibration": Calibration.ADAPTIVE},
     "STMask R50 FCA FCB(ada/ali: class+mask) TF"),
    ({"kernel_shapes": ((3, 3),) * 3}, "STMask R50 TF"),
])
def test_variant(changes: dict[str, Any], name: str) -> None:
    assert replace(CONFIG, **changes).variant == name


@pytest.mark.parametrize("temporal, tracking, own", [
    (TemporalConfig(), TrackingConfig(), TrackingConfig()),
    (TemporalConfig(), TrackingConfig("paper", epsilon=0.5), TrackingConfig("paper", epsilon=0.5)),
    (None, TrackingConfig(), TrackingConfig("frame")),
    (None, TrackingConfig("paper", epsilon=0.5), TrackingConfig("frame")),
    (None, TrackingConfig("frame", new_object_score=1.1), TrackingConfig("frame", new_object_score=1.1)),
])
def test_own_tracking(temporal: TemporalConfig | None, tracking: TrackingConfig, own: TrackingConfig) -> None:
    assert replace(CONFIG, temporal=temporal, tracking=tracking).own_tracking == own


@pytest.mark.parametrize("changes", [
    {}, {"temporal": None}, {"class_calibration": Calibration.ALIGNED, "centerness_order": CenternessOrder.ANCHOR},
    {"deformable_blocks": R50_DCN, "temporal": TemporalConfig(2, 5, 3, (1, 2, 3))},
    {"anchor_scales": (1.0, 1.26), "anchor_shapes": ((2.5, 3.5),) * 3},
    {"tracking": TrackingConfig("paper", alpha=4.0, epsilon=1.6)},
])
def test_json(changes: dict[str, Any]) -> None:
    config = replace(CONFIG, **changes)
    text = json.dumps(config.to_dict())
    assert ModelConfig.from_dict(json.loads(text)) == config


def test_defaults_fill_what_is_left_out() -> None:
    assert ModelConfig.from_dict({"class_names": ["cat", "dog"]}) == CONFIG


@pytest.mark.parametrize("changes, message", [
    ({"class_names": ()}, "at least one class"),
    ({"class_names": ("x",) * 20_000}, "at most 10000 classes"), ({"class_names": ("cat", "cat")}, "a class twice"),
    ({"class_names": ("x" * 256,)}, "at most 255 characters"), ({"class_names": ("a\u202eb",)}, "control characters"),
    ({"kernel_shapes": ((3, 3),) * 101, "anchor_shapes": ((3, 3),) * 101}, "at most 100 each"),
    ({"anchor_scales": (1.0,) * 101}, "at most 100 each"),
    ({"class_names": ("cat", " ")}, "empty or hold line breaks"), ({"class_names": ("a\nb",)}, "empty or hold line br"),
    ({"depths": (3, 4, 6)}, "four stages C2 to C5, got 3 and 4"),
    ({"depths": (3, 4, 6, 0)}, "depths must be in 1..1000"),
    ({"widths": (64, 128, 256, -1)}, "widths must be in 1.."),
    ({"anchor_shapes": ((3, 3),)}, "one anchor shape per kernel shape"),
    ({"anchor_shapes": ((3, 3), (3, 5), (5, 0))}, "must be positive"),
    ({"kernel_shapes": (), "anchor_shapes": ()}, "one anchor shape per kernel shape"),
    ({"kernel_shapes": ((3, 3), (0, 5), (5, 3))}, "kernel_shapes must be in 1.."),
    ({"anchor_scales": ()}, "at least one scale"),
    ({"anchor_scales": (0.0,)}, "must be positive"),
    ({"input_size": (31, 640)}, r"sides of input_size must be 32 to 8192 pixels, got \(31, 640\)"),
    ({"input_size": (360, 8193)}, "sides of input_size must be 32 to 8192 pixels"),
    ({"deformable_blocks": ((3, 3),)}, "blocks that depths"),
    ({"deformable_blocks": ((4, 0),)}, "blocks that depths"),
    ({"deformable_blocks": ((-1, 0),)}, "deformable_blocks"),
    ({"num_downsamples": -1, "temporal": None}, "num_downsamples must be in 0.."),
    ({"num_prototypes": 0}, "num_prototypes must be in 1.."),
    ({"tower_depth": -1}, "tower_depth must be in 0.."),
    ({"pixel_std": (1.0, 0.0, 1.0)}, "pixel_std must be positive"),
    ({"temporal": TemporalConfig(level=5)}, "temporal.level must be in 0..4"),
    ({"temporal": TemporalConfig(patch_size=4)}, "patch_size must be odd"),
    ({"temporal": TemporalConfig(patch_size=-1)}, "temporal.patch_size must be in 1.."),
    ({"temporal": TemporalConfig(widths=(0, 1, 1))}, "temporal.widths must be in 1.."),
    ({"tracking": TrackingConfig("frame")}, "with temporal fusion must propagate"),
])
def test_impossible_values(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        replace(CONFIG, **changes)
    assert str(caught.value).count("model configuration: ") == 1


@pytest.mark.parametrize("values, message", [
    ([1, 2], "expected a mapping, found list"),
    ("R50", "expected a mapping, found str"),
    ({}, "class_names"),
    ({"classes": ["cat"], 7: 1}, "unknown keys 7, classes; known: anchor_scales"),
    ({"class_names": "cat"}, "class_names has the wrong form: 'cat'"),
    ({"class_names": [1, 2]}, "class_names has the wrong form"),
    ({"class_names": ["cat"], "stem_width": "64"}, "stem_width has the wrong form"),
    ({"class_names": ["cat"], "stem_width": 64.0}, "stem_width has the wrong form"),
    ({"class_names": ["cat"], "stem_width": True}, "stem_width has the wrong form"),
    ({"class_names": ["cat"], "kernel_shapes": [[3, 3, 3]]}, "kernel_shapes has the wrong form"),
    ({"class_names": ["cat"], "input_size": [360]}, "input_size has the wrong form"),
    ({"class_names": ["cat"], "pixel_mean": [1, 2, float("nan")]}, "pixel_mean has the wrong form"),
    ({"class_names": ["cat"], "pixel_std": [True, 2, 3]}, "pixel_std has the wrong form"),
    ({"class_names": ["cat"], "anchor_scales": [float("inf")]}, "anchor_scales has the wrong form"),
    ({"class_names": ["cat"], "mask_calibration": "both"}, "'both' is not a valid Calibration"),
    ({"class_names": ["cat"], "centerness_order": "random"}, "'random' is not a valid CenternessOrder"),
    ({"class_names": ["cat"], "temporal": []}, "temporal: expected a mapping, found list"),
    ({"class_names": ["cat"], "temporal": {"patch": 3}}, "temporal: unknown keys patch; known: level"),
    ({"class_names": ["cat"], "temporal": {"patch_size": 3.5}}, "temporal: patch_size has the wrong form"),
    ({"class_names": ["cat"], "tracking": []}, "tracking: expected a mapping, found list"),
    ({"class_names": ["cat"], "tracking": None}, "tracking: expected a mapping, found NoneType"),
    ({"class_names": ["cat"], "tracking": "alpha=1"}, "tracking: expected a mapping, found str"),
    ({"class_names": ["cat"], "tracking": {"trackers": "paper"}}, "tracking: unknown keys trackers; known: alpha"),
    ({"class_names": ["cat"], "tracking": {"tracker": 1}}, "tracking: tracker has the wrong form"),
    ({"class_names": ["cat"], "tracking": {"tracker": "paper", "alpha": "4"}}, "alpha has the wrong form"),
    ({"class_names": ["cat"], "tracking": {"alpha": 4}}, "tracking: alpha is not read by the released tracker"),
    ({"class_names": ["cat"], "depths": [3, 4]}, "four stages"),
])
def test_from_dict_refuses(values: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        ModelConfig.from_dict(values)
    assert str(caught.value).count("model configuration: ") == 1
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("change", [{"deformable_blocks": ((-5, 0),)}, {"deformable_blocks": ((-10**30, 0),)},
                                    {"deformable_blocks": ((0, -1),)}, {"class_names": ("cat", "\ud800")}])
def test_damaged_configurations(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(change))):
        ModelConfig(**{"class_names": ("cat",), **change})
