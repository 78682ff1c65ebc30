"""The part of an ONNX graph that some of its outputs need.

ONNX Runtime's inference builds compute all outputs, whatever is fetched (`only_execute_path_to_fetches` is read by
its training builds alone), and the package `onnx` is no part of the runtime. So the few fields that matter are read
from the file's protobuf encoding: a message is a sequence of numbered fields, and dropping some leaves a valid message.
"""
from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

# Field numbers in onnx.proto.
_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_OUTPUT, _GRAPH_VALUE_INFO = 1, 5, 12, 13
_NODE_INPUT, _NODE_OUTPUT, _NODE_ATTRIBUTE = 1, 2, 5
_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS = 6, 11
_NAME = {_GRAPH_INITIALIZER: 8, _GRAPH_OUTPUT: 1, _GRAPH_VALUE_INFO: 1}  # where these messages hold their name
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types


class _Field(NamedTuple):
    number: int
    whole: memoryview  # key, length and value
    value: memoryview  # empty unless the field is a message or a string


def keep_outputs(model: bytes, outputs: Collection[str]) -> bytes:
    """`model` (an encoded ONNX model) with only these outputs and the nodes and weights that they need.

    All inputs stay, also those that nothing reads any more.

    Raises:
        ValueError: the bytes are no encoded model, or one of its nodes has a graph of its own (If, Loop, Scan).
    """
    parts: list[bytes | memoryview] = []
    for field in _fields(memoryview(model)):
        if field.number == _MODEL_GRAPH:
            kept = _pruned_graph(field.value, outputs)
            size = sum(map(len, kept))
            parts += [_encoded(_MODEL_GRAPH << 3 | _BYTES), _encoded(size), *kept]
        else:
            parts.append(field.whole)
    return b"".join(parts)


def _pruned_graph(graph: memoryview, outputs: Collection[str]) -> list[memoryview]:
    fields = list(_fields(graph))
    needed = set(outputs)
    nodes: dict[int, bool] = {}  # where in `fields`: whether it is needed
    for i in range(len(fields) - 1, -1, -1):  # from the last node back: a graph's nodes are in order of execution
        if fields[i].number == _GRAPH_NODE:
            reads, writes = _node_values(fields[i].value)
            nodes[i] = not needed.isdisjoint(writes)
            if nodes[i]:
                needed.update(reads)
    kept = []
    for i, field in enumerate(fields):
        names = set(outputs) if field.number == _GRAPH_OUTPUT else needed
        if nodes.get(i, True) and (field.number not in _NAME or _name_of(field) in names):
            kept.append(field.whole)
    return kept


def _node_values(node: memoryview) -> tuple[list[str], list[str]]:
    """Names that a node reads and writes."""
    values: dict[int, list[str]] = {_NODE_INPUT: [], _NODE_OUTPUT: []}
    for field in _fields(node):
        if field.number in values and len(field.value):  # optional values that are left out have empty names
            values[field.number].append(str(field.value, "utf-8"))
        elif field.number == _NODE_ATTRIBUTE:
            if any(part.number in (_ATTRIBUTE_GRAPH, _ATTRIBUTE_GRAPHS) for part in _fields(field.value)):
                raise ValueError("a node with a graph of its own may read any value")
    return values[_NODE_INPUT], values[_NODE_OUTPUT]


def _name_of(field: _Field) -> str:
    number = _NAME[field.number]
    return next((str(part.value, "utf-8") for part in _fields(field.value) if part.number == number), "")


def _fields(message: memoryview) -> Iterator[_Field]:
    """The fields of an encoded message, in order."""
    at = 0
    while at < len(message):
        start = at
        key, at = _varint(message, at)
        kind, size = key & 7, 0
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind == _VARINT:
            _, at = _varint(message, at)
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"no protobuf message: wire type {kind}")
        end = at + size
        if end > len(message):
            raise ValueError("no protobuf message: it ends within a field")
        yield _Field(key >> 3, message[start:end], message[at:end])
        at = end


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number at `at`, 7 bits a byte with the lowest first, and where it ends."""
    value = shift = 0
    while True:
        if at >= len(message):
            raise ValueError("no protobuf message: it ends within a number")
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _encoded(value: int) -> bytes:
    """`value` as a varint."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
