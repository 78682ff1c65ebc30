"""An ONNX model of memory, run as it is."""
from __future__ import annotations

import numpy as np
import onnx
import onnxruntime


def run(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """All outputs by name, on the CPU."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [info.name for info in model.graph.output]
    return dict(zip(names, session.run(names, feeds), strict=True))
