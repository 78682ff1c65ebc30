"""A graph of f16 much as a GPU computes it, for ONNX Runtime on a CPU: in f32, with rounding in between.

ONNX Runtime computes f16 on a CPU in f32 too, but leaves out the rounding between two layers.
"""
from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Digits of the significand after the 11 that f16 and TF32 keep, of the 24 of an f32: rounding to nearest is a product
# with 2^13 + 1 and two differences (Veltkamp's splitting).
FACTOR, FACTOR_NAME = float(2**13 + 1), "rounding_factor"
# What tensor cores compute; in f32 they read numbers of TF32 (`use_tf32`, which runs of f16 set).
HEAVY = ("Conv", "DeformConv", "Gemm", "MatMul")


def rounded(half: onnx.ModelProto) -> onnx.ModelProto:
    """`half`, as `export.half.to_half` makes it, in f32 alone, with its description.

    Values that were in f16 are rounded to its 11 binary digits when they are made, and what tensor cores read in f32
    before they do. Sums are in f32 on both. Not imitated: the range of f16, and that a GPU may cut numbers to TF32
    instead of rounding them.
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
        self._read: dict[str, str] = {}  # value in f32 -> its name as tensor cores read it
        self.added: list[onnx.TensorProto] = []

    def converted(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """The node in f32, with the rounding before and after it."""
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        if node.op_type in HEAVY:
            for i, name in enumerate(node.input[:2]):  # maps and weights; what is added is read in f32
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
        if name in self._weights:  # done here, or it would be done in every run
            values = numpy_helper.to_array(self._weights[name])
            product = values * np.float32(FACTOR)
            self.added.append(numpy_helper.from_array(product - (product - values), new_name))
            return []
        product, rest = f"{new_name}_product", f"{new_name}_rest"
        return [helper.make_node("Mul", [name, FACTOR_NAME], [product]),
                helper.make_node("Sub", [product, name], [rest]),
                helper.make_node("Sub", [product, rest], [new_name])]


def _single(tensor: onnx.TensorProto) -> onnx.TensorProto:
    """A constant, in f32 if it was in f16."""
    if tensor.data_type != TensorProto.FLOAT16:
        return tensor
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
