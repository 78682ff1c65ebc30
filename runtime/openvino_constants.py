"""Constant nodes of graphs in OpenVINO: making, reading and using them."""
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

_PART = 1 << 18  # number of values rounded at a time, for which there is room in caches


def int64(values: ArrayLike) -> Any:
    """A constant node for shapes, axes and permutations."""
    return _constant(values, np.int64)


def int32(values: ArrayLike) -> Any:
    """A constant node for indices."""
    return _constant(values, np.int32)


def float32(values: ArrayLike) -> Any:
    """A constant node for values in arithmetic."""
    return _constant(values, np.float32)


def floats(values: ArrayLike, precision: str) -> Any:
    """A constant node for finite values of one axis or more, in f32 or bf16.

    To bf16 they are rounded to nearest, ties to even, as by the CPU. OpenVINO's own `Convert` of constants rounds a
    quarter of all values the wrong way.
    """
    import openvino
    from openvino import opset13 as op

    exact = np.asarray(values, np.float32, order="C")
    if precision == "f32":
        return op.constant(exact, shared_memory=True)
    rounded = openvino.Tensor(openvino.Type.bf16, exact.shape)  # one around an array would not keep it alive
    source, target = exact.view(np.uint32).reshape(-1), rounded.data.view(np.uint16).reshape(-1)
    for start in range(0, source.size, _PART):
        bits = source[start:start + _PART]
        target[start:start + _PART] = bits + 0x7FFF + (bits >> 16 & 1) >> 16
    return op.constant(rounded, shared_memory=True)


def reshaped(value: Any, shape: Any) -> Any:
    """`value` in another shape: numbers, one of which may be -1, or a node of them. A 0 is a size of zero."""
    import openvino
    from openvino import opset13 as op

    return op.reshape(value, shape if isinstance(shape, openvino.Node) else int64(shape), special_zero=False)


def element_type(value: Any) -> str:
    """Name of the type of an output's values, such as "f32"."""
    return str(value.get_element_type().get_type_name())


def is_stored(node: Any) -> bool:
    """Whether `node`, an `openvino.Node`, is a constant, stored as f32 or as f16 that is converted."""
    source = _unconverted(node)
    return bool(source.get_type_name() == "Constant" and element_type(source) in ("f32", "f16"))


def stored(node: Any) -> Any:
    """A copy of the array that such a node stores."""
    return np.array(_unconverted(node).data)


def _unconverted(node: Any) -> Any:
    return node.input_value(0).get_node() if node.get_type_name() == "Convert" else node


def _constant(values: ArrayLike, dtype: type) -> Any:
    from openvino import opset13 as op

    return op.constant(np.asarray(values, dtype))
