"""Emulates on the CPU how a GPU runs an f16 graph: in f32, with rounding in between.

ONNX Runtime's own f16 on a CPU also computes in f32, but omits the rounding between layers.
"""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# An f32 significand has 13 bits more than the 11 of f16 and TF32. Veltkamp's splitting rounds them off to nearest with
# a product with 2^13 + 1 and two differences.
FACTOR, FACTOR_NAME = float(2**13 + 1), "rounding_factor"
# Operators run on tensor cores; in f32 these read TF32 numbers (`use_tf32`, which f16 runs enable).
HEAVY = ("Conv", "DeformConv", "Gemm", "MatMul")


def rounded(half: onnx.ModelProto) -> onnx.ModelProto:
    """`half`, as made by `export.half.to_half`, converted to f32 only, with its description.

    f16 values are rounded to 11 significant bits when computed, and f32 inputs of tensor cores before they are read.
    Sums are in f32 in both cases. Not emulated: the range of f16, and truncation to TF32, which a GPU may use instead
    of rounding.
    """
    graph = onnx.shape_inference.infer_shapes(half, strict_mode=True).graph
    types = {info.name: info.type.tensor_type.elem_type for info in (*graph.input, *graph.value_info, *graph.output)}
    weights = {one.name: one for one in graph.initializer}
    converter = _Converter(types, weights)
    nodes = [made for node in graph.node for made in converter.converted(node)]
    initializers = [*(_single(one) for one in graph.initializer), *converter.added,
                    numpy_helper.from_array(np.float32(FACTOR), FACTOR_NAME)]
    made = helper.make_model(helper.make_graph(nodes, graph.name, graph.input, graph.output, initializers),
                             opset_imports=half.opset_import, ir_version=half.ir_version)
    made.metadata_props.extend(half.metadata_props)
    onnx.checker.check_model(made, full_check=True)
    return made


class _Converter:
    def __init__(self, types: dict[str, int], weights: dict[str, onnx.TensorProto]) -> None:
        self._types, self._weights = types, weights
        self._read: dict[str, str] = {}  # f32 value -> name of its rounded version
        self.added: list[onnx.TensorProto] = []

    def converted(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """The node in f32, with the necessary rounding before and after it."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if node.op_type in HEAVY:
            for i, name in enumerate(node.input[:2]):  # maps and weights; additional inputs are read in f32
                if self._type(name) == TensorProto.FLOAT:
                    if name not in self._read:
                        self._read[name] = f"{name}_read"
                        yield from self._rounding(name, self._read[name])
                    copy.input[i] = self._read[name]
        for attribute in copy.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
            if attribute.HasField("t"):
                attribute.t.CopyFrom(_single(attribute.t))
        halves = [i for i, name in enumerate(node.output) if self._type(name) == TensorProto.FLOAT16]
        for i in halves:
            copy.output[i] = f"{node.output[i]}_exact"
        yield copy
        for i in halves:
            yield from self._rounding(copy.output[i], node.output[i])

    def _type(self, name: str) -> int | None:
        return self._weights[name].data_type if name in self._weights else self._types.get(name)

    def _rounding(self, name: str, new_name: str) -> list[onnx.NodeProto]:
        if name in self._weights:  # rounded here once rather than in every run
            values = numpy_helper.to_array(self._weights[name])
            product = values * np.float32(FACTOR)
            self.added.append(numpy_helper.from_array(product - (product - values), new_name))
            return []
        product, rest = f"{new_name}_product", f"{new_name}_rest"
        return [helper.make_node("Mul", [name, FACTOR_NAME], [product]),
                helper.make_node("Sub", [product, name], [rest]),
                helper.make_node("Sub", [product, rest], [new_name])]


def _single(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """A constant, converted to f32 if it was f16."""
    if tensor.data_type != TensorProto.FLOAT16:
        return tensor
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
