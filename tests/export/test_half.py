"""Graphs of f16 compute what those of f32 do, with what is delicate left alone; and CUDA has kernels for all of it."""
from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from cuda_kernels import F16, F32, with_tables, without_kernel
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_run import run
from onnxruntime import GraphOptimizationLevel

from stmask_deploy.bundle import REPORT_FILE, read_description
from stmask_deploy.errors import InputError
from stmask_deploy.export.half import to_half
from stmask_deploy.export.verify import verify_bundle
from stmask_deploy.models.checkpoint import Checkpoint
from stmask_deploy.pretrained import demo_bundle
from stmask_deploy.runtime.loading import open_bundle
from stmask_deploy.runtime.onnxruntime_providers import CPU, CUDA, skipped_optimizers

ROLES = read_description(demo_bundle()).roles
ROWS = 4


def demo_graph(role: str) -> onnx.ModelProto:
    return onnx.load(demo_bundle() / f"{role}.onnx")


def feeds_of(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    feeds: dict[str, np.ndarray] = {}
    for info in model.graph.input:
        shape = [size.dim_value or ROWS for size in info.type.tensor_type.shape.dim]
        kind = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        feeds[info.name] = (rng.uniform(0, 200 if kind != np.float32 else 1, shape)).astype(kind)
    if "boxes" in feeds:
        feeds["boxes"] = np.sort(feeds["boxes"].reshape(ROWS, 2, 2), axis=1).reshape(ROWS, 4)
    return feeds


def fixed_and_folded(model: onnx.ModelProto, path: Path, level: Any = GraphOptimizationLevel.ORT_ENABLE_BASIC,
                     provider: str = CUDA) -> onnx.ModelProto:
    """`model` for `ROWS` objects after ONNX Runtime's folding of constants, which every provider starts from."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path)
    options.graph_optimization_level = level
    options.add_free_dimension_override_by_name("N", ROWS)
    onnxruntime.InferenceSession(model.SerializeToString(), options, providers=[CPU],
                                 disabled_optimizers=skipped_optimizers(provider))
    return onnx.load(path)


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    return {info.name: info.type.tensor_type.elem_type for info in (*graph.input, *graph.value_info, *graph.output)}


@pytest.mark.parametrize("role", ROLES)
def test_values_agree_with_f32(role: str) -> None:
    model = demo_graph(role)
    feeds = feeds_of(model)
    expected, found = run(model, feeds), run(to_half(model)[0], feeds)
    rows = [name for name in expected if role == "frame" and expected[name].shape[:1] == expected["boxes"].shape[:1]]
    if rows:  # rows of nearly equal score may swap: those of the same anchors are compared
        _, old, new = np.intersect1d(expected["anchor_index"], found["anchor_index"], return_indices=True)
        assert len(old) > 0.8 * len(expected["anchor_index"])
        expected |= {name: expected[name][old] for name in rows}
        found |= {name: found[name][new] for name in rows}
    for name in expected.keys() - {"num_candidates"}:
        assert found[name].dtype == expected[name].dtype and found[name].shape == expected[name].shape
        assert np.abs(found[name] - expected[name]).max() <= 0.02 * np.ptp(expected[name]), name
    assert any(not np.array_equal(found[name], expected[name]) for name in expected)  # it is another arithmetic


@pytest.mark.parametrize("role", ROLES)
def test_inputs_and_outputs_stay_as_they_are(role: str) -> None:
    model = demo_graph(role)
    half = to_half(model)[0]
    assert list(half.graph.input) == list(model.graph.input) and list(half.graph.output) == list(model.graph.output)


def test_what_is_delicate_stays_in_f32() -> None:
    model, report = to_half(demo_graph("frame"))
    types = types_of(model)
    makers = {name: node for node in model.graph.node for name in node.output}
    for node in model.graph.node:
        if node.op_type in ("Softmax", "ReduceL2", "TopK", "Exp", "Tanh", "Greater", "Div"):
            assert types[node.output[0]] != F16, node.name
        if node.op_type == "DeformConv":
            cast = makers[node.input[2]]  # offsets: computed in f32, rounded where they enter
            assert cast.op_type == "Cast" and types[cast.input[0]] == F32
    assert {name for name in report.offsets} <= {node.name for node in model.graph.node if node.op_type == "Conv"}
    weights = [node.input[1] for node in model.graph.node if node.op_type == "DeformConv"]
    num_adaptive = sum("conv_adaption" in name for name in weights)  # each after the boxes that its offsets follow
    assert len(report.offsets) == len(weights) + num_adaptive > num_adaptive > 0
    assert report.half["DeformConv"] == len(weights)
    assert report.half["Conv"] > len(report.offsets) and report.saturated == 0
    assert report.others["Softmax"] > 0 and "Conv" not in report.others


def test_correlation_and_rois_stay_in_f32() -> None:
    model, report = to_half(demo_graph("temporal"))
    assert set(report.half) <= {"Conv", "Gemm", "Relu"} and {"MatMul", "RoiAlign"} <= set(report.others)
    types = types_of(model)
    assert all(types[node.output[0]] == F32 for node in model.graph.node if node.op_type in ("MatMul", "RoiAlign"))


def tiny_graph(weight: float) -> onnx.ModelProto:
    """x -> Conv -> Relu -> y, and the Relu's value times two as another output."""
    nodes = [helper.make_node("Conv", ["x", "w"], ["a"]), helper.make_node("Relu", ["a"], ["y"]),
             helper.make_node("Mul", ["y", "two"], ["z"])]
    values = {"w": np.full((1, 1, 1, 1), weight, np.float32), "two": np.float32(2)}
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 2, 2]) for name in "xyz"]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], [numpy_helper.from_array(np.asarray(value), name)
                                                                  for name, value in values.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def test_boxes_that_offsets_follow_are_not_rounded_before() -> None:
    """Box deltas -> offsets of a deformable convolution (FCB adaptive): both convolutions stay in f32."""
    weights = {"box.weight": (4, 2, 1, 1), "head.conv_offset.weight": (2, 4, 1, 1), "tower.weight": (2, 2, 1, 1),
               "conv_adaption.weight": (1, 2, 1, 1)}
    nodes = [helper.make_node("Conv", ["x", "tower.weight"], ["map"], "tower"),
             helper.make_node("Conv", ["map", "box.weight"], ["deltas"], "box"),
             helper.make_node("Conv", ["deltas", "head.conv_offset.weight"], ["offsets"], "offset"),
             helper.make_node("DeformConv", ["map", "conv_adaption.weight", "offsets"], ["y"], "adaption")]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, 3, 3])
             for name, channels in (("x", 2), ("y", 1))]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], [
        numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in weights.items()])
    model, report = to_half(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))
    assert report.offsets == ("box", "offset") and report.half == {"Conv": 1, "DeformConv": 1}
    types = types_of(model)
    assert (types["map"], types["deltas"], types["offsets"]) == (F16, F32, F32)


def as_tf32(values: np.ndarray) -> np.ndarray:
    """What tensor cores read of an f32: the nearest number with 10 bits behind the point."""
    mantissa, exponent = np.frexp(values.astype(np.float64))
    return np.ldexp(np.round(mantissa * 2**11) / 2**11, exponent)


def test_offsets_are_as_good_on_tensor_cores() -> None:
    """Both kinds: a map of f16 -> offsets, and a map -> box deltas -> offsets (FCB adaptive)."""
    rng = np.random.default_rng(0)
    shapes = {"mask.weight": (3, 64, 1, 1), "mask.bias": (3,), "head.conv_offset.weight": (2, 3, 1, 1),
              "tower.weight": (64, 64, 1, 1), "adaption.weight": (1, 64, 1, 1)}
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    nodes = [helper.make_node("Conv", ["x", "tower.weight"], ["map"]),
             helper.make_node("Conv", ["map", "mask.weight", "mask.bias"], ["deltas"]),
             helper.make_node("Conv", ["deltas", "head.conv_offset.weight"], ["offsets"]),
             helper.make_node("DeformConv", ["map", "adaption.weight", "offsets"], ["y"])]
    infos = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, 5, 7])
             for name, channels in (("x", 64), ("y", 1))}
    graph = helper.make_graph(nodes, "g", [infos["x"]], [infos["y"]],
                              [numpy_helper.from_array(values, name) for name, values in weights.items()])
    model, _ = to_half(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))
    types, constants = types_of(model), {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv" and types[node.output[0]] == F32]
    assert len(convolutions) == 2
    for node in convolutions:
        name = node.input[1].removesuffix("_parts").removesuffix("_input")
        values = (rng.standard_normal((shapes[name][1], 35)) * 3).astype(np.float32)
        read = values
        if "offset" in node.input[1]:  # which of its two kinds of channels come first, the graph tells
            top = (values.view(np.uint32) + 0x8000 & 0xFFFF0000).view(np.float32)  # bfloat16, halves upwards
            read = np.concatenate([top, values - top])
        else:
            values = read = values.astype(np.float16).astype(np.float32)
        parts = as_tf32(constants[node.input[1]])[..., 0, 0] @ as_tf32(read)
        found = parts[:len(parts) // 2] + parts[len(parts) // 2:]
        exact = weights[name][..., 0, 0].astype(np.float64) @ values
        plain = as_tf32(weights[name])[..., 0, 0] @ as_tf32(values)
        span = np.ptp(exact)
        assert np.abs(found - exact).max() < 2e-6 * span < 2e-5 * span < np.abs(plain - exact).max()
        if len(node.input) > 2:
            assert np.array_equal(constants[node.input[2]], np.r_[weights["mask.bias"], 0, 0, 0])
    x = rng.standard_normal((1, 64, 5, 7)).astype(np.float32)
    # ONNX Runtime leaves out that `map` is rounded on its way from one convolution to the next.
    tower, offsets = ReferenceEvaluator(exposed(model, "map", "offsets")).run(["map", "offsets"], {"x": x})
    deltas = np.einsum("oc,nchw->nohw", weights["mask.weight"][..., 0, 0], tower.astype(np.float32))
    deltas += weights["mask.bias"][:, None, None]
    expected = np.einsum("oc,nchw->nohw", weights["head.conv_offset.weight"][..., 0, 0], deltas)
    assert np.allclose(offsets, expected, rtol=1e-5, atol=1e-5 * np.ptp(expected))


@pytest.mark.parametrize("weight", ["grouped", "computed"])
def test_other_convolutions_of_offsets_stay_whole(weight: str) -> None:
    rng = np.random.default_rng(0)
    values = {"grouped": rng.standard_normal((2, 1, 1, 1)), "half": rng.standard_normal((2, 2, 1, 1)),
              "one": np.ones(1), "adaption": np.ones((1, 2, 1, 1)), "offset_bias": np.ones(2)}
    inputs = ["x", weight, "offset_bias"]
    group = 2 if weight == "grouped" else 1
    nodes = [helper.make_node("Mul", ["half", "one"], ["computed"]),
             helper.make_node("Conv", inputs, ["offsets"], group=group),
             helper.make_node("DeformConv", ["x", "adaption", "offsets"], ["y"])]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, 3, 3])
             for name, channels in (("x", 2), ("y", 1))]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], [
        numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in values.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    x = {"x": rng.standard_normal((1, 2, 3, 3)).astype(np.float32)}
    half = to_half(model)[0]
    assert "Split" not in {node.op_type for node in half.graph.node}
    assert np.allclose(run(half, x)["y"], run(model, x)["y"], atol=0.02)


def test_both_lowerings_keep_the_same_convolutions(native_bundle: Path, gridsample_bundle: Path) -> None:
    """Operators of the lowered one read the size of the map that they sample, which decides no position."""
    native, lowered = (to_half(onnx.load(folder / "frame.onnx"))[1] for folder in (native_bundle, gridsample_bundle))
    assert len(native.offsets) == len(lowered.offsets) > 0
    assert native.half["Conv"] <= lowered.half["Conv"]


def test_weights_of_maps_and_of_rows_do_not_share_their_parts() -> None:
    """One weight that reads a map of f16 in one place and what is in f32 in another."""
    values = {"w": np.eye(2, dtype=np.float32)[..., None, None] * np.float32(1.2345678)}
    nodes = [helper.make_node("Conv", ["x", "w"], ["map"]), helper.make_node("Conv", ["map", "w"], ["once"]),
             helper.make_node("Conv", ["once", "w.conv_offset.weight"], ["twice"]),
             helper.make_node("DeformConv", ["map", "adaption", "once"], ["y"]),
             helper.make_node("DeformConv", ["map", "adaption", "twice"], ["z"])]
    values |= {"w.conv_offset.weight": values["w"], "adaption": np.ones((1, 2, 1, 1), np.float32)}
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, 3, 3])
             for name, channels in (("x", 2), ("y", 1), ("z", 1))]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:],
                              [numpy_helper.from_array(value, name) for name, value in values.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    for node in model.graph.node:  # the same weight everywhere
        node.input[1:2] = ["w" if node.op_type == "Conv" else node.input[1]]
    x = {"x": np.random.default_rng(0).standard_normal((1, 2, 3, 3)).astype(np.float32)}
    found, expected = run(to_half(model)[0], x), run(model, x)
    assert all(np.allclose(found[name], expected[name], atol=0.02) for name in "yz")


def exposed(model: onnx.ModelProto, *names: str) -> onnx.ModelProto:
    """`model` with values inside it as its outputs."""
    copy = onnx.ModelProto()
    copy.CopyFrom(onnx.shape_inference.infer_shapes(model, strict_mode=True))
    del copy.graph.output[:]
    copy.graph.output.extend(info for info in copy.graph.value_info if info.name in names)
    return copy


def test_an_output_that_is_read_inside_too() -> None:
    model, report = to_half(tiny_graph(0.5))
    outputs = run(model, {"x": np.full((1, 1, 2, 2), 3, np.float32)})
    assert np.array_equal(outputs["y"], np.full((1, 1, 2, 2), 1.5, np.float32)) and (outputs["z"] == 3).all()
    assert (report.half, report.others) == ({"Conv": 1, "Relu": 1}, {"Mul": 1})


def test_weights_beyond_the_range_are_cut_and_counted() -> None:
    model, report = to_half(tiny_graph(1e6))
    assert report.saturated == 1
    assert run(model, {"x": np.full((1, 1, 2, 2), 0.5, np.float32)})["y"].max() == 32752  # 65504 / 2, not infinity


@pytest.mark.parametrize("precision", ["f32", "f16"])
@pytest.mark.parametrize("role", ROLES)
def test_cuda_has_a_kernel_for_every_node(role: str, precision: str, tmp_path: Path) -> None:
    model = demo_graph(role)
    folded = fixed_and_folded(model if precision == "f32" else to_half(model)[0], tmp_path / "folded.onnx")
    assert not list(without_kernel(folded))


@pytest.mark.parametrize("precision", ["f32", "f16"])
def test_cuda_has_a_kernel_for_every_node_without_deformable_convolution_too(gridsample_bundle: Path, precision: str,
                                                                             tmp_path: Path) -> None:
    description = read_description(gridsample_bundle)
    for role in description.roles:
        model = onnx.load(description.graph_path(gridsample_bundle, role, "onnxruntime", precision))
        folded = fixed_and_folded(model, tmp_path / "folded.onnx")
        assert not list(without_kernel(folded)) and "DeformConv" not in {node.op_type for node in folded.graph.node}


@pytest.mark.parametrize("role", ROLES)
def test_what_can_be_computed_in_advance_is_so_in_f16_too(role: str, tmp_path: Path) -> None:
    model = demo_graph(role)
    before, after = (Counter(node.op_type for node in fixed_and_folded(one, tmp_path / "folded.onnx").graph.node)
                     for one in (model, to_half(model)[0]))
    parts = {"Split", "Add", "Sub", "Concat"} if role == "frame" else set()  # of sampling positions, see `_in_parts`
    assert set(after - before) == {"Cast"} | parts and set(before - after) <= {"CastLike"}


@pytest.mark.parametrize("precision", ["f32", "f16"])
@pytest.mark.parametrize("role", ROLES)
def test_cuda_copies_no_tables_from_the_host(role: str, precision: str, tmp_path: Path) -> None:
    model = demo_graph(role) if precision == "f32" else to_half(demo_graph(role))[0]
    found = {provider: list(with_tables(fixed_and_folded(model, tmp_path / "folded.onnx",
                                                         GraphOptimizationLevel.ORT_ENABLE_EXTENDED, provider)))
             for provider in (CPU, CUDA)}
    assert not found[CUDA]
    assert bool(found[CPU]) is (role == "frame")  # the slices of offsets, boxes and so on would become Splits


def test_no_tables_in_a_graph_that_is_exported_now(native_bundle: Path, tmp_path: Path) -> None:
    model = onnx.load(native_bundle / "frame.onnx")
    assert "DeformConv" in {node.op_type for node in model.graph.node}
    assert not list(with_tables(fixed_and_folded(model, tmp_path / "folded.onnx",
                                                 GraphOptimizationLevel.ORT_ENABLE_EXTENDED)))


def test_results_of_convolutions_are_moved_before_they_are_made_f32() -> None:
    graph = to_half(demo_graph("frame"))[0].graph
    readers = {name: {other.op_type for other in graph.node if name in other.input}
               for node in graph.node if node.op_type == "Cast" and node.attribute[0].i == F32
               for name in node.output if node.input[0] != "frame"}
    assert len(readers) > 10 and not [name for name, found in readers.items()
                                      if found and found <= {"Concat", "Gather", "Reshape", "Transpose"}]


def test_a_value_of_f32_is_not_rounded_to_be_moved() -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"]), helper.make_node("Reshape", ["y", "shape"], ["row"]),
             helper.make_node("Concat", ["row", "exact"], ["both"], axis=0),
             helper.make_node("Concat", ["row", "row"], ["twice"], axis=0)]
    values = {"w": np.ones((1, 1, 1, 1), np.float32), "shape": np.array([4]), "exact": np.array([1 / 3], np.float32)}
    infos = [helper.make_tensor_value_info(name, F32, shape)
             for name, shape in (("x", [1, 1, 2, 2]), ("both", [5]), ("twice", [8]))]
    graph = helper.make_graph(nodes, "g", infos[:1], infos[1:],
                              [numpy_helper.from_array(value, name) for name, value in values.items()])
    model, report = to_half(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))
    assert report.half == {"Conv": 1, "Reshape": 1, "Concat": 1} and report.others == {"Concat": 1}
    outputs = run(model, {"x": np.full((1, 1, 2, 2), 0.5, np.float32)})
    assert outputs["both"].tolist() == [0.5] * 4 + [values["exact"][0]] and outputs["twice"].tolist() == [0.5] * 8


def test_a_bundle_with_graphs_of_f16(gridsample_bundle: Path, native_bundle: Path) -> None:
    description = read_description(gridsample_bundle)
    assert description.precisions == ("f16",) and 1e-5 < description.tolerances["onnxruntime f16"] < 5e-2
    opened = open_bundle(gridsample_bundle, precision="f16", device="cpu")
    assert "f16" in opened.frame.device and opened.temporal is not None
    report = json.loads((gridsample_bundle / REPORT_FILE).read_text())["f16"]
    assert set(report) == set(description.roles) - {"prototypes"} and report["frame"]["f32, sampling positions"]
    with pytest.raises(InputError, match="no .*frame_f16.onnx .*stmask-export CHECKPOINT --half makes it"):
        open_bundle(native_bundle, precision="f16")


def test_a_wrong_weight_of_an_f16_graph_is_found(gridsample_bundle: Path, tiny: Checkpoint, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(gridsample_bundle, folder)
    path = folder / "temporal_f16.onnx"
    model = onnx.load(path)
    weight = next(one for one in model.graph.initializer if one.name.endswith("fc.weight_half"))
    weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
    onnx.save(model, path)
    verification = verify_bundle(folder, tiny.build())
    assert not verification.passed and "onnxruntime f16 temporal/box_deltas" in verification.summary()
    assert not any(check.backend != "onnxruntime f16" for check in verification.checks if not check.passed)


def test_an_operator_without_a_kernel_is_found() -> None:
    nodes: Iterator[onnx.NodeProto] = iter([helper.make_node("NonZero", ["x"], ["y"])])
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", F32, [1])],
                              [helper.make_tensor_value_info("y", TensorProto.INT64, [1, "n"])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    assert list(without_kernel(model)) == ["NonZero of FLOAT ()"]
