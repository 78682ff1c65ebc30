"""Run and export STMask, one-stage video instance segmentation (CVPR 2021), as portable ONNX and OpenVINO graphs.

`stmask_deploy.load(bundle)` opens an exported bundle and returns a model whose `track(source)` yields one result per
frame. Importing this package is cheap: it loads nothing beyond the standard library until something is used.

It sends nothing anywhere, and tells ONNX Runtime, whose builds on PyPI report how they are used, to do the same. To
allow that, set ORT_DISABLE_TELEMETRY to 0 in the environment; if onnxruntime is imported before this package, set it
to 1.
"""
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "load"]

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read once, when onnxruntime is imported

if TYPE_CHECKING:
    from stmask_deploy.runtime.model import load


def __getattr__(name: str) -> Any:
    if name == "load":
        from stmask_deploy.runtime.model import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
