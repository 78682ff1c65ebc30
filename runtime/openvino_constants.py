"""Constant nodes for graphs built from OpenVINO's operators."""
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike


def int64(values: ArrayLike) -> Any:
    """A constant node for shapes, axes and permutations."""
    return _constant(values, np.int64)


def int32(values: ArrayLike) -> Any:
    """A constant node for indices."""
    return _constant(values, np.int32)


def float32(values: ArrayLike) -> Any:
    """A constant node for values in arithmetic."""
    return _constant(values, np.float32)


def bfloat16(values: ArrayLike) -> Any:
    """A constant node for finite values of two axes or more, rounded to bf16: to nearest, ties to even, as by the CPU.

    OpenVINO's own `Convert` of constants rounds a quarter of all values the wrong way.
    """
    import openvino
    from openvino import opset13 as op

    bits = np.asarray(values, np.float32).view(np.uint32)
    rounded = openvino.Tensor(openvino.Type.bf16, bits.shape)  # one around an array would not keep it alive
    for target, part in zip(rounded.data.view(np.uint16), bits, strict=True):  # in parts, which take less memory
        target[...] = part + 0x7FFF + (part >> 16 & 1) >> 16
    return op.constant(rounded, shared_memory=True)


def _constant(values: ArrayLike, dtype: type) -> Any:
    from openvino import opset13 as op

    return op.constant(np.asarray(values, dtype))
