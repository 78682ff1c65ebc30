"""Values beyond the range of f16 are found without a GPU."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from tiny_networks import TINY, write_checkpoint

from stmask_deploy.bundle import read_description
from stmask_deploy.config import Calibration
from stmask_deploy.errors import StmaskError
from stmask_deploy.export.exporter import ExportOptions, export_checkpoint
from stmask_deploy.export.half import to_half
from stmask_deploy.export.half_range import overflowing
from stmask_deploy.export.verify import _rows, frame_reference
from stmask_deploy.models.checkpoint import CONFIG_KEY, load_checkpoint
from stmask_deploy.pretrained import demo_bundle, demo_checkpoint


@pytest.mark.parametrize(("scale", "is_beyond"), [(100.0, False), (6e4, True)])
def test_a_layer_whose_values_come_back_into_the_range(scale: float, is_beyond: bool) -> None:
    values = {"up": np.full((1, 1, 1, 1), scale), "down": np.full((1, 1, 1, 1), 1 / scale)}
    nodes = [helper.make_node("Conv", ["x", "up"], ["large"]), helper.make_node("Relu", ["large"], ["above"]),
             helper.make_node("Conv", ["above", "down"], ["y"])]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 2, 2]) for name in ("x", "y")]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], [
        numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in values.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    found = overflowing(to_half(model)[0], [{"x": np.full((1, 1, 2, 2), 2, np.float32)}])
    assert found == (["large", "above"] if is_beyond else [])
    assert overflowing(model, [{"x": np.full((1, 1, 2, 2), 2, np.float32)}]) == []  # it has no f16


def test_a_network_that_overflows_is_refused(tmp_path: Path) -> None:
    """Prototypes the same to rounding, by way of a layer whose values are large."""
    config = replace(TINY, class_calibration=Calibration.NONE, mask_calibration=Calibration.NONE, deformable_blocks=())
    state = dict(load_checkpoint(write_checkpoint(tmp_path / "small.pth", config)).state)
    for name in ("proto_net.0.weight", "proto_net.0.bias"):
        state[name] = state[name] * 1e6
    state["proto_net.2.weight"] = state["proto_net.2.weight"] / 1e6
    torch.save({"state_dict": state, CONFIG_KEY: config.to_dict()}, tmp_path / "large.pth")
    with pytest.raises(StmaskError, match=r"frame/range of f16 \(\d+ values exceed 65504, first .*; use f32\)"):
        export_checkpoint(load_checkpoint(tmp_path / "large.pth"), tmp_path / "bundle",
                          ExportOptions(half=True, max_candidates=60))
    assert not (tmp_path / "bundle").exists()


def test_names_are_those_of_the_graph(gridsample_bundle: Path) -> None:
    model = to_half(onnx.load(gridsample_bundle / "frame.onnx"))[0]
    frame = np.zeros([size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim], np.uint8)
    assert overflowing(model, [{"frame": frame}]) == []


def test_corners_of_all_levels_are_tried() -> None:
    """The instance graph looks at windows around its rows alone."""
    description = read_description(demo_bundle())
    model = to_half(onnx.load(demo_bundle() / "instances.onnx"))[0]
    reference = frame_reference(load_checkpoint(demo_checkpoint()).build(), description,
                                np.zeros((1, *description.model.input_size, 3), np.uint8))
    shared = reference["shared"].copy()
    shared[200:] = 1e6
    assert overflowing(model, [{"shared": shared, "anchor_index": _rows(description, reference)}])
