"""Encodes small ONNX models without the package `onnx`."""
from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from . import onnx_fields as onnx
from .protobuf import write_field

IR_VERSION, OPSET = 10, 20  # what every supported ONNX Runtime and OpenVINO reads


def write_model(name: str, nodes: Iterable[bytes], inputs: Iterable[bytes], outputs: Iterable[bytes],
                initializers: Iterable[bytes] = ()) -> bytes:
    """An encoded model.

    Args:
        name: of its graph.
        nodes: from `write_node`, sorted topologically.
        inputs, outputs: from `write_value`.
        initializers: from `write_tensor`.
    """
    graph = b"".join([*(write_field(onnx.GRAPH_NODE, node) for node in nodes), write_field(onnx.GRAPH_NAME, name),
                      *(write_field(onnx.GRAPH_INITIALIZER, tensor) for tensor in initializers),
                      *(write_field(onnx.GRAPH_INPUT, value) for value in inputs),
                      *(write_field(onnx.GRAPH_OUTPUT, value) for value in outputs)])
    return (write_field(onnx.MODEL_IR_VERSION, IR_VERSION) + write_field(onnx.MODEL_GRAPH, graph)
            + write_field(onnx.MODEL_OPSET_IMPORT, write_field(onnx.OPSET_VERSION, OPSET)))


def write_node(kind: str, inputs: Iterable[str], output: str, *attributes: bytes) -> bytes:
    """A node with one output, after which it is named; `attributes` are from `write_ints`."""
    return b"".join([*(write_field(onnx.NODE_INPUT, name) for name in inputs), write_field(onnx.NODE_OUTPUT, output),
                     write_field(onnx.NODE_NAME, output), write_field(onnx.NODE_OP_TYPE, kind),
                     *(write_field(onnx.NODE_ATTRIBUTE, attribute) for attribute in attributes)])


def write_ints(name: str, values: Iterable[int]) -> bytes:
    """An attribute that is a list of integers, none of them negative."""
    return b"".join([write_field(onnx.ATTRIBUTE_NAME, name),
                     *(write_field(onnx.ATTRIBUTE_INTS, value) for value in values),
                     write_field(onnx.ATTRIBUTE_TYPE, onnx.INTS)])


def write_tensor(name: str, values: NDArray[np.generic]) -> bytes:
    """A constant of one of `onnx_fields.DATA_TYPES`."""
    return b"".join([*(write_field(onnx.TENSOR_DIMS, size) for size in values.shape),
                     write_field(onnx.TENSOR_DATA_TYPE, onnx.DATA_TYPES[values.dtype.name]),
                     write_field(onnx.TENSOR_NAME, name), write_field(onnx.TENSOR_RAW_DATA, values.tobytes())])


def write_value(name: str, dtype: str, shape: Sequence[int]) -> bytes:
    """An input or output of type `dtype`, one of `onnx_fields.DATA_TYPES`."""
    sizes = b"".join(write_field(onnx.SHAPE_DIM, write_field(onnx.DIM_VALUE, size)) for size in shape)
    tensor = (write_field(onnx.TENSOR_TYPE_ELEM, onnx.DATA_TYPES[dtype])
              + write_field(onnx.TENSOR_TYPE_SHAPE, sizes))
    return write_field(onnx.VALUE_NAME, name) + write_field(onnx.VALUE_TYPE, write_field(onnx.TYPE_TENSOR, tensor))
