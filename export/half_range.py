"""Whether the values of f16 graphs stay in the range of f16.

On a CPU, ONNX Runtime computes f16 layers in f32 and drops the casts between them, so that a value beyond the range
goes unnoticed. As an output of the graph, it is cast.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from stmask_deploy.bundle import BundleDescription, has_own_graph

from .onnx_model import run_onnx
from .verification import Arrays, Deviation


def range_checks(folder: Path, description: BundleDescription, feeds: Mapping[str, Sequence[Arrays]]
                 ) -> Iterator[Deviation]:
    """Check that no value computed in f16 exceeds its range; yields one deviation per graph, a problem or nothing.

    Args:
        folder: the bundle.
        description: of the bundle.
        feeds: inputs by role.
    """
    for role in description.roles:
        if has_own_graph(role, "onnxruntime", "f16"):
            wrong = overflowing(onnx.load(description.graph_path(folder, role, "onnxruntime", "f16")), feeds[role])
            problem = f"{len(wrong)} values exceed 65504, first {wrong[0]}; use f32" if wrong else ""
            yield Deviation(f"{role}/range of f16", (), 0.0, problem)


def overflowing(model: onnx.ModelProto, feeds: Sequence[Arrays]) -> list[str]:
    """Names of the f16 values in `model` that are not finite for any of these inputs, in the graph's order."""
    shown = onnx.shape_inference.infer_shapes(model)
    halves = [info for info in shown.graph.value_info if info.type.tensor_type.elem_type == TensorProto.FLOAT16]
    if not halves:
        return []
    del shown.graph.output[:]
    shown.graph.output.extend(halves)
    wrong = {name for values in feeds for name, value in run_onnx(shown, values).items()
             if not np.isfinite(value).all()}
    return [info.name for info in halves if info.name in wrong]
