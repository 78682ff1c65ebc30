from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_networks import TINY

from stmask_deploy.config import Calibration
from stmask_deploy.export.int8_layers import DEFORMABLE, UNKNOWN, float_reason, layer_lines, layer_name, layers_of
from stmask_deploy.models.stmask import build_stmask

HEAD = "prediction_layers.0."


@pytest.mark.parametrize("layer", [
    "backbone.conv1", "backbone.layers.1.0.conv2", "backbone.layers.1.0.conv2.conv_offset_mask",
    HEAD + "bbox_layer.0", HEAD + "centerness_layer.2", HEAD + "mask_layer.0", HEAD + "mask_layer.1.conv",
    HEAD + "track_layer.1", HEAD + "track_layer.0.conv", HEAD + "conf_layer.0.conv_offset",
    HEAD + "conf_layer.0.conv_adaption", HEAD + "conf_layer.1",
    HEAD + "conf_layer.1.conv", "fc", "fc_coeff"])
def test_sensitive_layers_stay_in_float_and_say_why(layer: str) -> None:
    assert float_reason(layer, TINY) not in (None, UNKNOWN)


@pytest.mark.parametrize("layer", [
    "backbone.layers.0.0.conv1", "backbone.layers.0.0.conv2", "backbone.layers.2.0.downsample.0",
    "fpn.lat_layers.2", "fpn.pred_layers.0", "fpn.downsample_layers.1", "proto_net.10", HEAD + "upfeature.0",
    HEAD + "bbox_extra.0", "conv1", "conv3"])
def test_the_others_are_int8(layer: str) -> None:
    assert float_reason(layer, TINY) is None


def test_which_blocks_are_deformable_decides_and_not_the_name() -> None:
    name = "backbone.layers.1.0.conv2"
    assert float_reason(name, TINY) == DEFORMABLE
    assert float_reason(name, replace(TINY, deformable_blocks=())) is None


def test_what_is_not_known_stays_in_float() -> None:
    assert float_reason("prediction_layers.0.new_extra.0", TINY) == UNKNOWN
    assert float_reason("xbackbone.layers.0.0.conv1", TINY) == UNKNOWN
    assert float_reason("backbone.layers.0.0.conv1.lora", TINY) == UNKNOWN


@pytest.mark.parametrize("kind", list(Calibration))
def test_every_layer_of_every_variant_is_known(kind: Calibration) -> None:
    config = replace(TINY, class_calibration=kind, mask_calibration=kind, track_calibration=kind)
    weights = {name.removesuffix(".weight").removeprefix("TemporalNet.")
               for name, value in build_stmask(config).state_dict().items()
               if name.endswith(".weight") and value.ndim > 1}
    assert len(weights) > 30
    assert [name for name in weights if float_reason(name, config) == UNKNOWN] == []


def test_nodes_that_share_a_parameter_are_one_layer() -> None:
    layers = layers_of("frame", ["model.fpn.lat_layers.0.weight", *["model.prediction_layers.0.upfeature.0.weight"] * 5,
                                 "model.prediction_layers.0.bbox_layer.0.weight",
                                 "model.prediction_layers.0.bbox_layer.1.weight"], TINY)
    assert [(layer.name, layer.nodes) for layer in layers[:2]] == [("fpn.lat_layers.0", 1), (HEAD + "upfeature.0", 5)]
    assert layers[0].to_dict() == {"graph": "frame", "layer": "fpn.lat_layers.0", "nodes": 1, "precision": "int8"}
    assert layers[2].to_dict()["precision"] == "float" and layers[2].to_dict()["reason"] == "box and centerness outputs"
    assert layer_lines("openvino", layers) == ["int8 on openvino: 2 of 4 layers",
                                               "  float: prediction_layers.*.bbox_layer.* (box and centerness outputs)"]
    assert layer_name("net.fc.weight") == "fc"
