"""What the tests of recorded sessions share: tiny graphs opened as recordings, and values for them."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from cuda_runtime import FakeCudaRuntime
from tiny_bundles import SHAPES

from stmask_deploy.runtime.backends import Backend
from stmask_deploy.runtime.opening import open_backend

MAPS = ("prev_fpn", "fpn", "prev_temporal", "temporal")
MAP_VALUES = {name: np.full(SHAPES[name.removeprefix("prev_")], 0.4, np.float32) for name in MAPS}


class CapturableSession:
    """A session on the CPU whose runs can be captured by a stand-in for CUDA's runtime, which then does not run them.

    Attributes:
        bound: addresses of its inputs and outputs.
        inputs: what is bound.
        captured: the inputs' values when its run was captured.
        num_runs: runs that were not captured.
    """

    def __init__(self, session: Any, library: FakeCudaRuntime) -> None:
        self.session, self.library = session, library
        self.bound: list[int] = []
        self.inputs: list[Any] = []
        self.captured: list[np.ndarray] = []
        self.num_runs = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def io_binding(self) -> Any:
        return WatchedBinding(self.session.io_binding(), self.bound, self.inputs)

    def run_with_iobinding(self, binding: Any, options: Any = None) -> None:
        if self.library.is_capturing:
            self.captured = [value.numpy().copy() for value in self.inputs]
            entry = "disable_synchronize_execution_providers"
            assert options.get_run_config_entry(entry) == "1"  # waiting for a stream ends its capture
            self.library.add(lambda: self.session.run_with_iobinding(binding.binding))
        else:
            self.num_runs += 1
            self.session.run_with_iobinding(binding.binding)


class WatchedBinding:
    """A binding that notes the addresses it is given."""

    def __init__(self, binding: Any, addresses: list[int], inputs: list[Any]) -> None:
        self.binding, self.addresses, self.inputs = binding, addresses, inputs

    def __getattr__(self, name: str) -> Any:
        bind = getattr(self.binding, name)
        if not name.startswith("bind_ortvalue"):
            return bind
        if name == "bind_ortvalue_input":
            return lambda key, value: (self.addresses.append(value.data_ptr()), self.inputs.append(value),
                                       bind(key, value))
        return lambda key, value: (self.addresses.append(value.data_ptr()), bind(key, value))


def open_recorded(graph: Path) -> Backend:
    return open_backend("onnxruntime", graph, device="cuda-graph", threads=1)


def value_of(array: np.ndarray) -> onnxruntime.OrtValue:
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def picture(level: int) -> dict[str, np.ndarray]:
    return {"frame": np.full((1, 40, 64, 3), level, np.uint8)}
