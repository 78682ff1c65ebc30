"""Which tensors are rounded to 8 bits is read from the quantised graph itself, not from what chose them."""
from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import onnx
import pytest
from clips import write_clip
from onnx_run import run
from tiny_networks import TINY

from stmask_deploy.bundle import read_description
from stmask_deploy.export.exporter import ExportOptions, export_graph
from stmask_deploy.export.int8_layers import float_reason, layer_name
from stmask_deploy.export.int8_onnx import int8_nodes, quantize_onnx, weight_of
from stmask_deploy.export.int8_recording import Recording, record
from stmask_deploy.models.checkpoint import Checkpoint
from stmask_deploy.pretrained import demo_bundle
from stmask_deploy.synthetic.clips import render

ROLES = ("frame", "temporal")


@pytest.fixture(scope="module")
def recording(native_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    return record(native_bundle, write_clip(tmp_path_factory.mktemp("clips") / "clip", 4), 100, ROLES)


@pytest.fixture(scope="module", params=["native", "gridsample", "opset 21, as traced"])
def graphs(request: pytest.FixtureRequest, tiny: Checkpoint, native_bundle: Path,
           recording: Recording) -> dict[str, tuple[onnx.ModelProto, ...]]:
    """Role -> graph in f32 and in int8."""
    found = {}
    for role in ROLES:
        if request.param == "opset 21, as traced":
            options = ExportOptions(opset=21, simplify=False)
            model = export_graph(tiny.build(), read_description(native_bundle), role, options)
        else:
            folder: Path = request.getfixturevalue(f"{request.param}_bundle")
            model = onnx.load(folder / f"{role}.onnx")
        found[role] = (model, quantize_onnx(model, role, recording.feeds[role], TINY)[0])
    return found


def weights_by_node(model: onnx.ModelProto) -> dict[str, tuple[str, bool]]:
    """Node -> (layer, whether its weights are read through DequantizeLinear)."""
    source = {output: node for node in model.graph.node for output in node.output}
    found = {}
    for node in model.graph.node:
        if node.op_type in ("Conv", "Gemm", "DeformConv", "ModulatedDeformConv"):
            before = source.get(node.input[1])
            is_int8 = before is not None and before.op_type == "DequantizeLinear"
            name = before.input[0].removesuffix("_quantized") if is_int8 and before else node.input[1]
            found[node.name] = (layer_name(name), is_int8)
    return found


def test_exactly_the_layers_that_the_rules_allow_are_int8(graphs: dict[str, tuple[onnx.ModelProto, ...]]) -> None:
    seen = {role: weights_by_node(after) for role, (_, after) in graphs.items()}
    for role, nodes in seen.items():
        for layer, is_int8 in nodes.values():
            assert is_int8 == (float_reason(layer, TINY) is None), (role, layer)
    assert sum(is_int8 for _, is_int8 in seen["frame"].values()) > 30
    assert {layer for layer, is_int8 in seen["temporal"].values() if is_int8} == {"conv1", "conv2", "conv3"}


def test_nothing_sensitive_is_rounded(graphs: dict[str, tuple[onnx.ModelProto, ...]]) -> None:
    after = graphs["frame"][1]
    rounded = {node.input[0] for node in after.graph.node if node.op_type == "QuantizeLinear"}
    weights = weights_by_node(after)
    for node in after.graph.node:
        layer = weights.get(node.name, ("", True))[0]
        if node.name in weights and float_reason(layer, TINY) is not None and "backbone" not in layer:
            assert not rounded & set(node.output), layer  # outputs, offsets
        if node.op_type in ("DeformConv", "ModulatedDeformConv"):
            assert not rounded & {node.input[2], *node.output}, layer
        if node.op_type in ("Softmax", "TopK", "Exp", "ReduceL2", "Tanh", "Sigmoid", "Gather"):
            assert not rounded & set(node.input) and not rounded & set(node.output), node.op_type


def test_the_graph_keeps_its_face_and_its_values(graphs: dict[str, tuple[onnx.ModelProto, ...]],
                                                 recording: Recording) -> None:
    for role, (before, after) in graphs.items():
        onnx.checker.check_model(after)
        assert [info.name for info in before.graph.input] == [info.name for info in after.graph.input]
        assert [info.name for info in before.graph.output] == [info.name for info in after.graph.output]
        feed = dict(recording.feeds[role][0])
        old, new = run(before, feed), run(after, feed)
        for name in {"frame": ("fpn", "temporal"), "temporal": ("coeff_deltas",)}[role]:
            # Far less than a trained network keeps: in one without training the offsets are unruly.
            alike = np.corrcoef(old[name].ravel(), new[name].ravel())[0, 1]
            assert 0.9 < alike and not np.array_equal(old[name], new[name]), (role, name, alike)


def test_a_trained_network_is_within_a_few_percent() -> None:
    model = onnx.load(demo_bundle() / "frame.onnx")
    config = read_description(demo_bundle()).model
    feeds = [{"frame": frame[None]} for frame in render("val", 2, 4, config.input_size).pictures()]
    after, _ = quantize_onnx(model, "frame", feeds[:3], config)
    old, new = run(model, feeds[3]), run(after, feeds[3])  # a picture that was not calibrated with
    for name in ("prototypes", "fpn", "temporal", "shared"):
        error = np.abs(old[name] - new[name]).max() / np.ptp(old[name])
        assert 0 < error < 0.1, (name, error)
    assert logging.root.manager.disable == logging.NOTSET  # messages are logged again


def test_convolutions_stay_together_with_what_stands_between_them(native_bundle: Path) -> None:
    model = onnx.load(native_bundle / "frame.onnx")
    chosen = set(int8_nodes(model, TINY))
    kinds = [node.op_type for node in model.graph.node if node.name in chosen]
    assert kinds.count("Relu") >= 15 and kinds.count("Add") >= 3
    # The shortcut of a block, and not the sum of the pyramid, whose one side was resized in float.
    source = {output: node for node in model.graph.node for output in node.output}
    for node in model.graph.node:
        if node.op_type == "Add" and node.name in chosen:
            assert all(source[name].op_type in ("Conv", "Relu") for name in node.input)


def test_a_graph_without_int8_layers_is_copied(native_bundle: Path) -> None:
    model = onnx.load(native_bundle / "temporal.onnx")
    for one in model.graph.initializer:
        if one.name.startswith("net.conv"):
            for node in model.graph.node:
                for position, name in enumerate(node.input):
                    if name == one.name:
                        node.input[position] = f"other.{name}"
            one.name = f"other.{one.name}"
    copy, layers = quantize_onnx(model, "temporal", [], TINY)
    assert copy == model and copy is not model and all(layer.reason for layer in layers)


@pytest.mark.parametrize(("bundle", "ours"), [("native_bundle", set()), ("gridsample_bundle", {"ModulatedDeformConv"})])
def test_only_parameters_count_as_weights(bundle: str, ours: set[str], request: pytest.FixtureRequest) -> None:
    model = onnx.load(request.getfixturevalue(bundle) / "frame.onnx")
    parameters = {one.name for one in model.graph.initializer}
    kinds = {node.op_type for node in model.graph.node if weight_of(node, parameters)}
    assert kinds == {"Conv", "DeformConv", *ours}
