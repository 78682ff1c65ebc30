"""Whether the values of an f16 graph stay in the range of f16.

On a CPU, ONNX Runtime computes f16 layers in f32 and drops the casts between them, so that a value beyond the range
goes unnoticed. As an output of the graph, it is cast.
"""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from .onnx_model import run_onnx


def overflowing(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> list[str]:
    """Names of the f16 values in `model` that are not finite for these inputs."""
    shown = onnx.shape_inference.infer_shapes(model)
    halves = [info for info in shown.graph.value_info if info.type.tensor_type.elem_type == TensorProto.FLOAT16]
    del shown.graph.output[:]
    shown.graph.output.extend(halves)
    if not halves:
        return []
    return [name for name, value in run_onnx(shown, feeds).items() if not np.isfinite(value).all()]
