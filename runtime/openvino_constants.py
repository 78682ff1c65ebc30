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


def _constant(values: ArrayLike, dtype: type) -> Any:
    from openvino import opset13 as op

    return op.constant(np.asarray(values, dtype))
