"""Conversion of an f32 graph to one with f16 convolutions, for GPUs."""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from onnx import TensorProto, helper, numpy_helper

HEAVY = ("Conv", "DeformConv", "Gemm")  # nearly all of the arithmetic
# Operators that only move values, which loses nothing: f16 if all their inputs are.
MOVING = ("Concat", "Gather", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")
# Operators that combine feature maps without changing their magnitude: f16 if one of their inputs is.
FOLLOWING = ("Add", "LeakyRelu", "MaxPool", "Relu", "Resize")
DELTA_READER = ".conv_offset.weight"  # of convolutions that compute offsets from boxes (FCB adaptive), not from a map
MAP_RANK = 4  # rank of feature maps; other values are rows, boxes and coordinates
_LARGEST = float(np.finfo(np.float16).max)
_DATA = {"Resize": (0,)}  # indices of the inputs that have the node's type, if not all floating-point inputs do


@dataclass(frozen=True)
class HalfReport:
    """What a conversion did with the floating-point nodes of a graph."""

    half: dict[str, int]  # operator -> number of nodes in f16
    offsets: tuple[str, ...]  # names of convolutions left in f32 because sampling positions depend on them
    others: dict[str, int]  # operator -> number of other nodes left in f32
    saturated: int  # number of weights outside the range of f16, which were clipped to it

    def to_dict(self) -> dict[str, Any]:
        return {"f16": self.half, "f32, sampling positions": list(self.offsets), "f32, by operator": self.others,
                "weights cut to the range": self.saturated}


def to_half(model: onnx.ModelProto) -> tuple[onnx.ModelProto, HalfReport]:
    """Convert a copy of `model`; inputs and outputs stay in f32.

    Convolutions and fully connected layers become f16, with their weights, and so do the operators between them and
    those that move their results. Everything else stays in f32: softmax, probabilities, ranking and top-k, box
    decoding, normalisation of embeddings, correlation (whose sums exceed the range of f16), sampling grids and RoIs.
    Convolutions that compute the offsets of deformable convolutions, or boxes that offsets depend on, also stay in f32,
    but are rewritten so that tensor cores compute them about as accurately, see `_Converter._in_parts`. The offsets are
    only rounded to f16 when they enter the deformable convolution, all of whose inputs have one type: they are
    distances of a few pixels from each tap, and the kernel adds them to its positions in f32.
    """
    inlined = onnx.shape_inference.infer_shapes(onnx.inliner.inline_local_functions(model), strict_mode=True)
    converter = _Converter(inlined)
    converted = converter.convert()
    onnx.checker.check_model(converted, full_check=True)
    return converted, converter.report()


class _Converter:
    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        graph = model.graph
        self._weights = {one.name: one for one in graph.initializer if one.data_type == TensorProto.FLOAT}
        infos = (*graph.input, *graph.value_info, *graph.output)
        self._types = {info.name: info.type.tensor_type.elem_type for info in infos}
        self._floats = {info.name: len(info.type.tensor_type.shape.dim) for info in infos
                        if self._types[info.name] == TensorProto.FLOAT}  # name -> rank
        self._floats |= {name: len(one.dims) for name, one in self._weights.items()}
        self._halves: set[str] = set()  # names of values computed in f16
        self._casts: dict[tuple[str, int], str] = {}  # (value, type) -> name of the value in that type
        self._added: list[onnx.TensorProto] = []
        self._half: Counter[str] = Counter()
        self._others: Counter[str] = Counter()
        self._offsets = _offset_nodes(graph)
        self._saturated = 0

    def convert(self) -> onnx.ModelProto:
        nodes = [made for node in self._model.graph.node for made in self._converted(node)]
        outputs = {info.name for info in self._model.graph.output} & self._halves
        for name in sorted(outputs):  # back to f32, under the original name
            _rename(nodes, name, f"{name}_half")
            nodes.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
        used = {name for node in nodes for name in node.input}
        initializers = [one for one in (*self._model.graph.initializer, *self._added) if one.name in used]
        graph = helper.make_graph(nodes, self._model.graph.name, self._model.graph.input, self._model.graph.output,
                                  initializers)
        return helper.make_model(graph, opset_imports=self._model.opset_import, ir_version=self._model.ir_version)

    def report(self) -> HalfReport:
        kept = tuple(node.name for node in self._model.graph.node
                     if node.op_type in HEAVY and node.output[0] in self._offsets)
        return HalfReport(dict(self._half.most_common()), kept, dict(self._others.most_common()), self._saturated)

    def _converted(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """Yield the casts that the node needs, then the node in its new type."""
        if node.op_type == "CastLike":  # ONNX Runtime can fold a Cast, and with it all that is computed from it
            node = helper.make_node("Cast", node.input[:1], node.output, node.name, to=self._types[node.output[0]])
        is_half = self._becomes_half(node)
        wanted = TensorProto.FLOAT16 if is_half else TensorProto.FLOAT
        is_exact = node.input[0] in self._halves if node.input else True
        copy = onnx.NodeProto()
        copy.CopyFrom(node)
        for i, name in enumerate(node.input):
            if name not in self._floats:
                continue
            own = i in _DATA.get(node.op_type, range(len(node.input)))
            copy.input[i], cast = self._as_type(name, wanted if own else TensorProto.FLOAT)
            yield from cast
        floats = [name for name in node.output if name in self._floats]
        if is_half:
            self._halves.update(floats)
            self._half[node.op_type] += 1
        elif floats and node.op_type != "Constant" and self._offsets.isdisjoint(node.output):
            self._others[node.op_type] += 1
        is_offset = node.op_type == "Conv" and not self._offsets.isdisjoint(node.output)
        yield from self._in_parts(copy, is_exact) if is_offset and self._has_parts(copy) else [copy]

    def _in_parts(self, node: onnx.NodeProto, is_exact: bool) -> Iterator[onnx.NodeProto]:
        """Rewrite an f32 convolution so that it stays accurate on tensor cores, which read f32 as TF32.

        TF32 has 10 mantissa bits; products are exact and sums are f32. So each value is split into a sum of two: a part
        that TF32 represents exactly, and a small remainder, which it rounds. At most 2^-22 of a weight and 2^-19 of an
        input are lost. The two parts of the weights form twice as many filters, and the two halves of the output are
        added.

        Args:
            node: a convolution, see `_has_parts`.
            is_exact: the input comes from f16, whose 10 mantissa bits fit. Otherwise the input is split too: its
                bfloat16 part (7 mantissa bits) and the remainder form twice as many channels.
        """
        name = node.output[0]
        weight = numpy_helper.to_array(self._weights[node.input[1]])
        high = _as_tf32(weight)
        parts = np.concatenate([high, weight - high])
        if not is_exact:
            source, top, low, both = node.input[0], f"{name}_top", f"{name}_low", f"{name}_input"
            yield helper.make_node("Cast", [source], [f"{top}_bf16"], to=TensorProto.BFLOAT16)
            yield helper.make_node("Cast", [f"{top}_bf16"], [top], to=TensorProto.FLOAT)
            yield helper.make_node("Sub", [source, top], [low])
            yield helper.make_node("Concat", [top, low], [both], axis=1)
            node.input[0] = both
            parts = np.concatenate([parts, parts], axis=1)
        node.input[1] = self._with_constant(f"{node.input[1]}_{'parts' if is_exact else 'input_parts'}", parts)
        if len(node.input) > 2:
            bias = numpy_helper.to_array(self._weights[node.input[2]])
            node.input[2] = self._with_constant(f"{node.input[2]}_parts", np.concatenate([bias, np.zeros_like(bias)]))
        node.output[0] = f"{name}_parts"
        yield node
        halves = [f"{name}_high_weights", f"{name}_low_weights"]
        yield helper.make_node("Split", node.output, halves, axis=1, num_outputs=2)
        yield helper.make_node("Add", halves, [name])

    def _has_parts(self, node: onnx.NodeProto) -> bool:
        """Whether a convolution has constant weights and only one group, so that filters can be concatenated."""
        is_grouped = any(one.name == "group" and one.i != 1 for one in node.attribute)
        return not is_grouped and all(name in self._weights for name in node.input[1:])

    def _with_constant(self, name: str, values: Any) -> str:
        """Add a constant, unless another pyramid level has already added it, and return `name`."""
        if all(one.name != name for one in self._added):
            self._added.append(numpy_helper.from_array(values, name))
        return name

    def _becomes_half(self, node: onnx.NodeProto) -> bool:
        if set(node.output) & self._offsets:
            return False
        if node.op_type in HEAVY:
            return True
        if node.op_type in MOVING and self._halves.issuperset(set(node.input) & self._floats.keys()):
            return node.output[0] in self._floats
        return (node.op_type in FOLLOWING and not self._halves.isdisjoint(node.input)
                and self._floats.get(node.output[0]) == MAP_RANK)

    def _as_type(self, name: str, wanted: int) -> tuple[str, list[onnx.NodeProto]]:
        """The name of value `name` in type `wanted`, and the new node that casts it, if one is needed."""
        if wanted == (TensorProto.FLOAT16 if name in self._halves else TensorProto.FLOAT):
            return name, []
        key = (name, wanted)
        if key in self._casts:
            return self._casts[key], []
        self._casts[key] = f"{name}_{'half' if wanted == TensorProto.FLOAT16 else 'single'}"
        if name in self._weights:
            self._added.append(self._half_weight(name, self._casts[key]))
            return self._casts[key], []
        return self._casts[key], [helper.make_node("Cast", [name], [self._casts[key]], to=wanted)]

    def _half_weight(self, name: str, new_name: str) -> onnx.TensorProto:
        values = numpy_helper.to_array(self._weights[name])
        self._saturated += int((np.abs(values) > _LARGEST).sum())
        return numpy_helper.from_array(np.clip(values, -_LARGEST, _LARGEST).astype(np.float16), new_name)


def _as_tf32(values: Any) -> Any:
    """`values` rounded to TF32, which keeps 10 of the 23 mantissa bits of f32."""
    return ((np.ascontiguousarray(values).view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def _offset_nodes(graph: onnx.GraphProto) -> set[str]:
    """Names of the values from which sampling positions are computed, back to the convolutions that read maps."""
    makers = {name: node for node in graph.node for name in node.output}
    open_ones = [node.input[2] for node in graph.node if node.op_type == "DeformConv"]
    open_ones += [node.input[1] for node in graph.node if node.op_type in ("GridSample", "RoiAlign")]
    found: set[str] = set()
    while open_ones:
        name = open_ones.pop()
        if name not in found and name in makers:
            found.update(makers[name].output)
            if makers[name].op_type == "Shape":
                continue  # positions depend on the size of that map, not on its values
            if makers[name].op_type not in HEAVY:
                open_ones += makers[name].input
            elif makers[name].input[1].endswith(DELTA_READER):
                open_ones.append(makers[name].input[0])
    return found


def _rename(nodes: list[onnx.NodeProto], name: str, new_name: str) -> None:
    for node in nodes:
        for names in (node.input, node.output):
            for i, one in enumerate(names):
                if one == name:
                    names[i] = new_name
