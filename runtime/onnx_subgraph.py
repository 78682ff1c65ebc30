"""Pruning an ONNX graph to the part that some of its outputs depend on.

ONNX Runtime's inference builds compute all outputs, whichever are fetched (only training builds honour
`only_execute_path_to_fetches`), and the runtime does not depend on the package `onnx`. So the few relevant fields are
read directly from the protobuf encoding: a message is a sequence of numbered fields, and remains valid without some.
"""
from __future__ import annotations

from collections.abc import Collection

from stmask_deploy import onnx_fields as onnx
from stmask_deploy.protobuf import Field, bytes_key, read_fields

# Field that holds the message's name.
_NAME = {onnx.GRAPH_INITIALIZER: onnx.TENSOR_NAME, onnx.GRAPH_OUTPUT: onnx.VALUE_NAME,
         onnx.GRAPH_VALUE_INFO: onnx.VALUE_NAME}


def keep_outputs(model: bytes, outputs: Collection[str]) -> bytes:
    """`model` (an encoded ONNX model) reduced to these outputs and the nodes and weights they depend on.

    All inputs are kept, even unused ones.

    Raises:
        ValueError: the bytes are not an encoded model, or one of its nodes has a subgraph (If, Loop, Scan).
    """
    parts: list[bytes | memoryview] = []
    for field in read_fields(memoryview(model)):
        if field.number == onnx.MODEL_GRAPH:
            kept = _pruned_graph(field.value, outputs)
            parts += [bytes_key(onnx.MODEL_GRAPH, sum(map(len, kept))), *kept]
        else:
            parts.append(field.whole)
    return b"".join(parts)


def _pruned_graph(graph: memoryview, outputs: Collection[str]) -> list[memoryview]:
    fields = list(read_fields(graph))
    needed = set(outputs)
    nodes: dict[int, bool] = {}  # index in `fields` -> whether the node is needed
    for i in range(len(fields) - 1, -1, -1):  # backwards, because nodes are sorted topologically
        if fields[i].number == onnx.GRAPH_NODE:
            reads, writes = _node_values(fields[i].value)
            nodes[i] = not needed.isdisjoint(writes)
            if nodes[i]:
                needed.update(reads)
    kept = []
    for i, field in enumerate(fields):
        names = set(outputs) if field.number == onnx.GRAPH_OUTPUT else needed
        if nodes.get(i, True) and (field.number not in _NAME or _name_of(field) in names):
            kept.append(field.whole)
    return kept


def _node_values(node: memoryview) -> tuple[list[str], list[str]]:
    """Names of the values that a node reads and writes."""
    values: dict[int, list[str]] = {onnx.NODE_INPUT: [], onnx.NODE_OUTPUT: []}
    for field in read_fields(node):
        if field.number in values and len(field.value):  # omitted optional values have empty names
            values[field.number].append(str(field.value, "utf-8"))
        elif field.number == onnx.NODE_ATTRIBUTE:
            if any(part.number in (onnx.ATTRIBUTE_GRAPH, onnx.ATTRIBUTE_GRAPHS) for part in read_fields(field.value)):
                raise ValueError("a node with a graph of its own may read any value")
    return values[onnx.NODE_INPUT], values[onnx.NODE_OUTPUT]


def _name_of(field: Field) -> str:
    number = _NAME[field.number]
    return next((str(part.value, "utf-8") for part in read_fields(field.value) if part.number == number), "")
