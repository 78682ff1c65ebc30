"""A network's names and shapes tell its configuration."""
from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import CONFIG, shapes_of, tiny_config

from stmask_deploy.classes import YTVIS_2019
from stmask_deploy.config import Calibration, CenternessOrder, ModelConfig, TemporalConfig
from stmask_deploy.errors import InputError
from stmask_deploy.models.stmask import build_stmask
from stmask_deploy.models.variant import anchor_scales, anchor_shapes, infer_config

NONE, ADAPTIVE, ALIGNED = Calibration.NONE, Calibration.ADAPTIVE, Calibration.ALIGNED
RELEASED = tiny_config(input_size=(360, 640))  # values that tensors do not show, as released
HALF = math.sqrt(0.5)

VARIANTS = {
    "as released": {},
    "no temporal fusion": {"temporal": None},
    "DCN somewhere": {"depths": (2, 3, 1, 2), "deformable_blocks": ((0, 1), (1, 0), (1, 2), (3, 1))},
    "DCN in every block": {"deformable_blocks": ((0, 0), (1, 0), (2, 0), (3, 0))},
    "R101's depths": {"depths": (3, 4, 23, 3), "deformable_blocks": ((1, 0), (2, 21), (3, 0))},
    "FCB adaptive on classes": {"class_calibration": ADAPTIVE},
    "FCB aligned on classes": {"class_calibration": ALIGNED},
    "FCB on masks": {"mask_calibration": ADAPTIVE},
    "FCB on tracks": {"track_calibration": ALIGNED},
    "FCB of both kinds": {"class_calibration": ADAPTIVE, "mask_calibration": ALIGNED, "track_calibration": ADAPTIVE},
    "FCA with small kernels": {"kernel_shapes": ((3, 3), (3, 2), (2, 3))},
    "FCA with small kernels and FCB": {"kernel_shapes": ((3, 3), (3, 2), (2, 3)), "class_calibration": ADAPTIVE,
                                       "mask_calibration": ALIGNED},
    "no FCA": {"kernel_shapes": ((3, 3),) * 3,
               "anchor_shapes": ((3, 3), (3 * HALF, 3 / HALF), (3 / HALF, 3 * HALF))},
    "one kernel": {"kernel_shapes": ((3, 3),)},
    "nine anchors": {"anchor_scales": (1.0, 2 ** (1 / 3), 2 ** (2 / 3))},
    "nine anchors and FCB": {"anchor_scales": (1.0, 2 ** (1 / 3), 2 ** (2 / 3)), "class_calibration": ADAPTIVE,
                             "track_calibration": ALIGNED},
    "many classes": {"class_names": tuple(f"class_{i}" for i in range(1, 42))},
    "one class": {"class_names": ("class_1",)},
    "window of one cell": {"temporal": TemporalConfig(patch_size=1, widths=(3, 4, 5))},
    "window of 11 cells": {"temporal": TemporalConfig(patch_size=11, widths=(3, 4, 5))},
    "P3 to P5": {"num_downsamples": 0},
    "P3 to P8": {"num_downsamples": 3},
    "towers of one layer": {"tower_depth": 1},
    "towers of none": {"tower_depth": 0},
    "towers of four": {"tower_depth": 4},
    "no bottleneck": {"expansion": 1},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_round_trip(changes: dict[str, object]) -> None:
    config = tiny_config(input_size=(360, 640), **changes)
    found = infer_config(shapes_of(config))
    assert replace(found, anchor_shapes=config.anchor_shapes) == config
    assert np.ravel(found.anchor_shapes) == pytest.approx(np.ravel(config.anchor_shapes))


sizes = st.integers(1, 9)
kinds = st.sampled_from(Calibration)


@st.composite
def configs(draw: st.DrawFn) -> ModelConfig:
    depths = draw(st.tuples(*[st.integers(1, 3)] * 4))
    blocks = [(stage, block) for stage, depth in enumerate(depths) for block in range(depth)]
    deformable = tuple(block for block in blocks if draw(st.booleans()))
    kernels = draw(st.sampled_from([((3, 3), (3, 5), (5, 3)), ((3, 3), (3, 2), (2, 3)), ((3, 3),), ((1, 1), (5, 5))]))
    temporal = draw(st.none() | st.builds(TemporalConfig, patch_size=st.sampled_from([1, 3, 5, 11]),
                                          widths=st.tuples(sizes, sizes, sizes)))
    return tiny_config(
        class_names=tuple(f"class_{i}" for i in range(1, draw(sizes) + 1)), stem_width=draw(sizes), depths=depths,
        widths=draw(st.tuples(sizes, sizes, sizes, sizes)), expansion=draw(st.integers(1, 4)),
        deformable_blocks=deformable, fpn_width=draw(sizes), num_downsamples=draw(st.integers(0, 3)),
        proto_width=draw(sizes), num_prototypes=draw(sizes), head_width=draw(sizes),
        tower_depth=draw(st.integers(0, 3)), kernel_shapes=kernels,
        anchor_scales=anchor_scales(draw(st.integers(1, 3))), class_calibration=draw(kinds),
        mask_calibration=draw(kinds), track_calibration=draw(kinds), embedding_dim=draw(sizes), temporal=temporal,
        input_size=(360, 640))


@given(configs())
@settings(max_examples=40)
def test_round_trip_of_any(config: ModelConfig) -> None:
    assert infer_config(shapes_of(config)) == config


@pytest.mark.reference
def test_all_released_variants(reference_dir: Path) -> None:
    manifests = sorted((reference_dir / "manifests").glob("*.json"))
    assert len(manifests) == 20
    variants = {}
    for path in manifests:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        shapes = {name: tuple(shape) for name, shape in manifest["parameters"]}
        config = infer_config(shapes)
        assert config.num_classes == manifest["num_classes"], path.stem
        with torch.device("meta"):
            state = build_stmask(config).state_dict()
        assert {name: tuple(value.shape) for name, value in state.items()} == shapes, path.stem
        variants[path.stem] = config.variant
    assert variants["STMask_base"] == "STMask R101 FCA TF"
    assert variants["STMask_resnet50"] == "STMask R50 FCA TF"
    assert variants["STMask_plus_resnet50_ali_OVIS"] == "STMask R50-DCN FCA FCB(ali: class) TF"
    assert variants["STMask_plus_base_ada"] == "STMask R101-DCN FCA FCB(ada: class) TF"


def test_released_names() -> None:
    # Names that no other part of the project writes down: what makes a released file load at all.
    config = replace(RELEASED, class_names=YTVIS_2019, deformable_blocks=((2, 0),), class_calibration=ADAPTIVE)
    names = set(shapes_of(config))
    assert {
        "backbone.conv1.weight", "backbone.bn1.running_var", "backbone.bn1.num_batches_tracked",
        "backbone.layers.1.0.downsample.0.weight", "backbone.layers.1.0.downsample.1.bias",
        "backbone.layers.2.0.conv2.weight", "backbone.layers.2.0.conv2.bias",
        "backbone.layers.2.0.conv2.conv_offset_mask.weight", "fpn.lat_layers.2.bias", "fpn.pred_layers.0.weight",
        "fpn.downsample_layers.1.weight", "proto_net.0.weight", "proto_net.4.bias", "proto_net.8.weight",
        "proto_net.10.weight", "prediction_layers.0.upfeature.0.weight", "prediction_layers.0.conf_extra.2.bias",
        "prediction_layers.0.bbox_layer.2.weight", "prediction_layers.0.centerness_layer.0.bias",
        "prediction_layers.0.conf_layer.1.conv_adaption.weight", "prediction_layers.0.conf_layer.1.conv_offset.weight",
        "prediction_layers.0.conf_layer.1.conv.bias", "prediction_layers.0.mask_layer.0.weight",
        "prediction_layers.0.track_layer.2.bias", "TemporalNet.conv3.weight", "TemporalNet.fc.weight",
        "TemporalNet.fc_coeff.bias",
    } <= names
    assert "prediction_layers.0.conf_layer.1.conv_adaption.bias" not in names
    assert "prediction_layers.0.conf_layer.1.conv_offset.bias" not in names


def test_what_shapes_cannot_show_is_as_released() -> None:
    shown = replace(RELEASED, centerness_order=CenternessOrder.ANCHOR, input_size=(96, 96), pixel_mean=(0.0, 0.0, 0.0),
                    temporal=replace(RELEASED.temporal, level=2, roi_size=5))
    assert infer_config(shapes_of(shown)) == RELEASED


def test_anchors_without_fca() -> None:
    # Paper section 4.1: aspect ratios 1, 1/2 and 2; every anchor keeps the area of its kernel.
    shapes = anchor_shapes(((3, 3),) * 3)
    assert [height / width for height, width in shapes] == pytest.approx([1, 1 / 2, 2])
    assert [height * width for height, width in shapes] == pytest.approx([9, 9, 9])
    assert anchor_shapes(((3, 3),) * 2, (1.0, 4.0))[1] == pytest.approx((6, 1.5))
    with pytest.raises(InputError, match="4 kernels of one shape need as many anchor ratios"):
        anchor_shapes(((3, 3),) * 4)


def test_the_anchor_of_a_single_kernel() -> None:
    assert anchor_shapes(((3, 3),)) == ((3, 3),) and anchor_shapes(((3, 3),), (4.0,)) == ((6, 1.5),)
    with pytest.raises(InputError, match="1 kernel needs one anchor ratio, got 3"):
        anchor_shapes(((3, 3),), (1.0, 2.0, 7.0))


def test_anchors_with_fca_are_their_kernels() -> None:
    assert anchor_shapes(((3, 3), (3, 5))) == ((3, 3), (3, 5))
    with pytest.raises(InputError, match="without FCA"):
        anchor_shapes(((3, 3), (3, 5)), (1.0, 2.0))


HEAD = "prediction_layers.0."
BAD = {
    "nothing": ({name: None for name in shapes_of(CONFIG)}, "backbone.layers.* and prediction_layers.0.bbox_layer.*"),
    "no backbone": ({name: None for name in shapes_of(CONFIG) if name.startswith("backbone")},
                    r"no parameters named backbone.layers.\*: this is not"),
    "no head": ({name: None for name in shapes_of(CONFIG) if name.startswith(HEAD)}, "named prediction_layers"),
    "no box layers": ({name: None for name in shapes_of(CONFIG) if "bbox_layer" in name}, "named prediction_layers"),
    "no classes": ({f"{HEAD}conf_layer.0.weight": (1, 7, 3, 3)}, "the class layer has 1 outputs"),
    "a billion classes": ({f"{HEAD}conf_layer.0.weight": (10**9, 1, 1, 1)}, "the class layer has 1000000000 outputs"),
    "empty width": ({"backbone.layers.0.0.conv1.weight": (0, 4, 1, 1)}, "none of them 0"),
    "wrong rank": ({"fpn.lat_layers.0.weight": (6, 10)}, r"has shape \[6, 10\], expected 4 dimensions"),
    "three stages": ({name: None for name in shapes_of(CONFIG) if re.match(r"backbone\.layers\.3", name)},
                     "four stages C2 to C5, got 3 and 3"),
    "gap in the box layers": ({f"{HEAD}bbox_layer.1.weight": None}, r"missing +prediction_layers.0.bbox_layer.1"),
    "gaps in many layers": ({f"{HEAD}bbox_layer.99.weight": (12, 7, 3, 3), "TemporalNet.conv2.weight": None},
                            r"it lacks 97 (.*\n)+  \.\.\. and 77 more$"),
    "even window": ({"TemporalNet.conv1.weight": (5, 14 + 4, 3, 3)}, "not an odd square"),
    "no square window": ({"TemporalNet.conv1.weight": (5, 14 + 8, 3, 3)}, "not an odd square"),
    "no window": ({"TemporalNet.conv1.weight": (5, 14, 3, 3)}, "not an odd square"),
}


@pytest.mark.parametrize("changes, message", BAD.values(), ids=BAD)
def test_impossible_shapes(changes: dict[str, tuple[int, ...] | None], message: str) -> None:
    shapes = {**shapes_of(CONFIG), **changes}
    with pytest.raises(InputError, match=message):
        infer_config({name: shape for name, shape in shapes.items() if shape is not None})


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["backbone.layers.0.{}.conv1.weight", "backbone.layers.{}.0.conv1.weight",
                                  "fpn.downsample_layers.{}.weight", HEAD + "bbox_layer.{}.weight"])
@pytest.mark.parametrize("index", ["999999999999", "9" * 5000])
def test_absurd_layer_numbers_cost_nothing(name: str, index: str) -> None:
    assert infer_config({**shapes_of(RELEASED), name.format(index): (2, 2, 3, 3)}) == RELEASED
