"""The count against hand-computed layers, and against a second count from the package `onnx` on the demo model."""
from __future__ import annotations

from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.shape_inference
import pytest
from onnx import TensorProto, helper, numpy_helper
from tiny_bundles import write_bundle

from stmask_deploy.bench.arithmetic import BundleArithmetic, count_flops
from stmask_deploy.bench.convolution_chain import ConvolutionChain
from stmask_deploy.bench.watched_graph import Call
from stmask_deploy.bundle import read_description
from stmask_deploy.errors import InputError
from stmask_deploy.pretrained import demo_bundle


def model(nodes: list[Any], inputs: dict[str, list[int | str]], outputs: dict[str, list[int | str]],
          weights: dict[str, list[int]] | None = None) -> bytes:
    def values(shapes: dict[str, list[int | str]]) -> list[Any]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]

    initializers = [numpy_helper.from_array(np.zeros(shape, np.float32), name)
                    for name, shape in (weights or {}).items()]
    graph = helper.make_graph(nodes, "g", values(inputs), values(outputs), initializers)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    return bytes(onnx.shape_inference.infer_shapes(made).SerializeToString())


@pytest.mark.parametrize("kind, weight, output, expected", [
    # 8 x 10 cells, 16 channels from 3, 3x3 kernel
    ("Conv", [16, 3, 3, 3], [1, 16, 8, 10], 2 * 8 * 10 * 16 * 3 * 9),
    ("ConvTranspose", [3, 5, 3, 3], [1, 5, 10, 12], 2 * 8 * 10 * 3 * 5 * 9),
])
def test_convolutions(kind: str, weight: list[int], output: list[int | str], expected: int) -> None:
    pads = {"pads": [1, 1, 1, 1]} if kind == "Conv" else {}
    encoded = model([helper.make_node(kind, ["x", "w"], ["y"], **pads)], {"x": [1, 3, 8, 10]}, {"y": output},
                    {"w": weight})
    assert count_flops(encoded, ["y"]) == expected


def test_groups_strides_and_shapes_that_are_inferred() -> None:
    nodes = [helper.make_node("Conv", ["x", "a"], ["h"], pads=[1] * 4, strides=[2, 2], group=4),
             helper.make_node("Relu", ["h"], ["r"]), helper.make_node("Conv", ["r", "b"], ["y"])]
    encoded = model(nodes, {"x": [1, 8, 16, 16]}, {"y": [1, 6, 8, 8]}, {"a": [12, 2, 3, 3], "b": [6, 12, 1, 1]})
    assert count_flops(encoded, ["y"]) == 2 * 8 * 8 * 12 * 2 * 9 + 2 * 8 * 8 * 6 * 12


def test_matrix_products_by_number_of_rows() -> None:
    nodes = [helper.make_node("Gemm", ["x", "a", "c"], ["h"], transB=1), helper.make_node("MatMul", ["h", "b"], ["y"])]
    encoded = model(nodes, {"x": ["N", 20]}, {"y": ["N", 3]}, {"a": [7, 20], "c": [7], "b": [7, 3]})
    for rows in (0, 1, 9):
        assert count_flops(encoded, ["y"], rows) == rows * 2 * (20 * 7 + 7 * 3)


def test_only_what_the_outputs_need() -> None:
    nodes = [helper.make_node("MatMul", ["x", "a"], ["y"]), helper.make_node("MatMul", ["x", "b"], ["z"])]
    encoded = model(nodes, {"x": [2, 5]}, {"y": [2, 3], "z": [2, 4]}, {"a": [5, 3], "b": [5, 4]})
    assert (count_flops(encoded, ["y"]), count_flops(encoded, ["z"])) == (60, 80)
    assert count_flops(encoded, ["y", "z"]) == 140


def slow_flops(path: Path, rows: int) -> int:
    """With the package `onnx`, layer by layer, all outputs."""
    loaded = onnx.load(path)
    shapes = {one.name: list(one.dims) for one in loaded.graph.initializer}
    for info in (*loaded.graph.value_info, *loaded.graph.input, *loaded.graph.output):
        shapes[info.name] = [rows if dim.dim_param else dim.dim_value for dim in info.type.tensor_type.shape.dim]
    total = 0
    for node in loaded.graph.node:
        out = shapes.get(node.output[0], [])
        if node.op_type in ("Conv", "DeformConv"):
            _, channels, height, width = shapes[node.input[1]]
            total += 2 * prod(out) * channels * height * width
        elif node.op_type == "Gemm":
            total += 2 * out[0] * out[1] * shapes[node.input[0]][1]
        elif node.op_type == "MatMul":
            total += 2 * prod(out) * shapes[node.input[0]][-1]
        elif node.op_type == "Correlation":
            total += 2 * prod(out) * shapes[node.input[0]][1]
    return total


@pytest.mark.parametrize("role, rows", [("frame", 0), ("instances", 3), ("temporal", 10)])
def test_the_demo_model_against_a_slow_twin(role: str, rows: int) -> None:
    description = read_description(demo_bundle())
    if role not in description.roles:
        pytest.skip(f"the demo bundle has no {role} graph")
    path = demo_bundle() / f"{role}.onnx"
    outputs = description.tensor_names(role)[1]
    assert count_flops(path.read_bytes(), outputs, rows) == slow_flops(path, rows) > 0


def test_calls_add_up() -> None:
    arithmetic = BundleArithmetic(demo_bundle(), read_description(demo_bundle()))
    one = Call("temporal", ("box_deltas", "coeff_deltas"), 1)
    more = one._replace(rows=4)
    assert arithmetic.flops(Counter({one: 2, more: 1})) == 2 * arithmetic.flops({one: 1}) + arithmetic.flops({more: 1})


def test_a_window_of_prototypes_has_the_arithmetic_of_its_cells() -> None:
    description = read_description(demo_bundle())
    width, num_prototypes = description.model.proto_width, description.model.num_prototypes
    cell = 2 * (9 * width * (description.model.fpn_width + 2 * width) + 4 * width * (9 * width + num_prototypes))
    arithmetic = BundleArithmetic(demo_bundle(), description)
    for cells in (0, 8 * 8, 24 * 40):
        assert arithmetic.flops({Call("prototypes", ("prototypes",), cells): 1}) == cell * cells


@pytest.mark.parametrize("precision", ["f32", "f16", "int8"])
def test_the_chain_has_the_arithmetic_that_it_says(precision: str) -> None:
    chain = ConvolutionChain(3, precision)
    made = onnx.shape_inference.infer_shapes(onnx.load_from_string(chain.to_onnx()))
    onnx.checker.check_model(made, full_check=True)
    assert chain.flops == 2 * 3 * 256 * 256 * 9 * 48 * 80
    assert count_flops(made.SerializeToString(), ["end"]) == chain.flops


def test_a_file_that_does_not_tell(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("MatMul", ["h", "h"], ["y"])]
    graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 2])],
                              [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 2])])
    encoded = helper.make_model(graph).SerializeToString()
    with pytest.raises(ValueError, match="has no shape for 'h'"):
        count_flops(encoded, ["y"])
    folder = write_bundle(tmp_path / "bundle")
    (folder / "frame.onnx").write_bytes(b"\x0b\x00")
    with pytest.raises(InputError, match="cannot be counted"):
        BundleArithmetic(folder, read_description(folder)).flops({Call("frame", ("boxes",), 0): 1})
