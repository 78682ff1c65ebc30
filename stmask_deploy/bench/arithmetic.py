"""Amount of arithmetic in a graph: multiplications and additions of its convolutions and matrix products.

They are counted from the shapes in the ONNX file, so any bundle can be counted without PyTorch or the `onnx` package.
As is usual, everything else (interpolation, suppression, sampling) is left out.
"""
from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path

from stmask_deploy import onnx_fields as onnx
from stmask_deploy.bundle import PROTOTYPE_INPUTS, PROTOTYPE_OUTPUTS, BundleDescription
from stmask_deploy.errors import InputError
from stmask_deploy.protobuf import Field, read_fields, read_varint
from stmask_deploy.runtime.onnx_subgraph import keep_outputs

from .watched_graph import Call

Shape = tuple[int, ...]


@dataclass
class _Node:
    kind: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)


def count_flops(model: bytes, outputs: Collection[str], rows: int = 0) -> int:
    """Floating-point operations needed for these outputs; a multiplication and an addition count as two.

    Args:
        model: an encoded ONNX model that includes the shapes of its values.
        outputs: the outputs to compute; nodes they do not need are not counted.
        rows: length assumed for every dynamic dimension.

    Raises:
        ValueError: the bytes are not an encoded model, or a shape that matters is missing.
    """
    nodes: list[_Node] = []
    shapes: dict[str, Shape] = {}
    for part in read_fields(keep_outputs(model, outputs)):
        if part.number == onnx.MODEL_GRAPH:
            _read_graph(part.value, rows, nodes, shapes)
    return sum(_node_flops(node, shapes) for node in nodes)


def _node_flops(node: _Node, shapes: Mapping[str, Shape]) -> int:
    def shape(name: str) -> Shape:
        if name not in shapes:
            raise ValueError(f"the model has no shape for {name!r}")
        return shapes[name]

    if node.kind in ("Conv", "DeformConv", "ModulatedDeformConv"):  # the last one is this project's own
        return 2 * prod(shape(node.outputs[0])) * prod(shape(node.inputs[1])[1:])
    if node.kind == "ConvTranspose":
        return 2 * prod(shape(node.inputs[0])) * prod(shape(node.inputs[1])[1:])
    if node.kind == "MatMul":
        return 2 * prod(shape(node.outputs[0])) * shape(node.inputs[0])[-1]
    if node.kind == "Gemm":  # (M, K) or (K, M) times an operand, producing (M, N)
        result = shape(node.outputs[0])
        return 2 * result[1] * prod(shape(node.inputs[0])) if result[0] else 0
    if node.kind == "Correlation":  # this project's own: a dot product over all channels for every pair of cells
        return 2 * prod(shape(node.outputs[0])) * shape(node.inputs[0])[1]
    return 0


def _read_graph(graph: memoryview, rows: int, nodes: list[_Node], shapes: dict[str, Shape]) -> None:
    for part in read_fields(graph):
        if part.number == onnx.GRAPH_NODE:
            nodes.append(_read_node(part.value))
        elif part.number == onnx.GRAPH_INITIALIZER:
            fields = list(read_fields(part.value))
            name = next(str(one.value, "utf-8") for one in fields if one.number == onnx.TENSOR_NAME)
            shapes[name] = _dims(fields)
        elif part.number in (onnx.GRAPH_INPUT, onnx.GRAPH_OUTPUT, onnx.GRAPH_VALUE_INFO):
            _read_value(part.value, rows, shapes)


def _dims(fields: Collection[Field]) -> Shape:
    """Shape of a tensor, stored packed in one field or as one field per dimension."""
    sizes: list[int] = []
    for one in fields:
        if one.number == onnx.TENSOR_DIMS:
            sizes += _packed(one.value) if len(one.value) else [one.integer]
    return tuple(sizes)


def _packed(numbers: memoryview) -> list[int]:
    found, at = [], 0
    while at < len(numbers):
        number, at = read_varint(numbers, at)
        found.append(number)
    return found


def _read_node(node: memoryview) -> _Node:
    read = _Node()
    for part in read_fields(node):
        if part.number == onnx.NODE_INPUT:
            read.inputs.append(str(part.value, "utf-8"))
        elif part.number == onnx.NODE_OUTPUT:
            read.outputs.append(str(part.value, "utf-8"))
        elif part.number == onnx.NODE_OP_TYPE:
            read.kind = str(part.value, "utf-8")
    return read


def _read_value(value: memoryview, rows: int, shapes: dict[str, Shape]) -> None:
    fields = {part.number: part.value for part in read_fields(value)}
    tensor = _child(fields.get(onnx.VALUE_TYPE), onnx.TYPE_TENSOR)
    shape = _child(tensor, onnx.TENSOR_TYPE_SHAPE)
    if shape is None:
        return
    sizes: list[int] = []
    for dim in read_fields(shape):
        if dim.number == onnx.SHAPE_DIM:
            known = {part.number: part.integer for part in read_fields(dim.value)}
            sizes.append(rows if onnx.DIM_PARAM in known or not known else known.get(onnx.DIM_VALUE, 0))
    shapes[str(fields[onnx.VALUE_NAME], "utf-8")] = tuple(sizes)


def _child(message: memoryview | None, number: int) -> memoryview | None:
    if message is None:
        return None
    return next((part.value for part in read_fields(message) if part.number == number), None)


class BundleArithmetic:
    """The arithmetic of a bundle's graphs, which for every precision and backend is that of the f32 ONNX files."""

    def __init__(self, folder: Path, description: BundleDescription) -> None:
        self._folder, self._description = folder, description
        self._models: dict[str, bytes] = {}
        self._known: dict[Call, int] = {}

    def flops(self, calls: Mapping[Call, int]) -> int:
        """Floating-point operations of all `calls`, which map each call to how often it was made.

        Raises:
            InputError: a graph's file cannot be read or lacks its shapes.
        """
        return sum(count * self._flops(call) for call, count in calls.items())

    def _flops(self, call: Call) -> int:
        if call.role == "prototypes":  # the part of the frame graph after P3, in proportion to the window
            size = self._description.model.level_sizes[0]
            whole, before = (self._flops(Call("frame", names, 0)) for names in (PROTOTYPE_OUTPUTS, PROTOTYPE_INPUTS))
            return (whole - before) * call.rows // prod(size)
        if call not in self._known:
            path = self._description.graph_path(self._folder, call.role, "onnxruntime")
            try:
                if call.role not in self._models:
                    self._models[call.role] = path.read_bytes()
                self._known[call] = count_flops(self._models[call.role], call.outputs, call.rows)
            except (OSError, ValueError) as error:
                raise InputError(f"{path}: its arithmetic cannot be counted ({error}); export the checkpoint again"
                                 ) from error
        return self._known[call]
