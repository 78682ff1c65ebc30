"""A session whose kernels' launches are recorded once and replayed: a CUDA graph."""
from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backends import TensorSpec, Value
from .onnxruntime_session import specs


class RecordedSession:
    """Inputs and outputs stay at the addresses they had while the launches were recorded.

    Values are copied to and from there: those of the host over the bus, as ever; those that stay on the device within
    its memory. ONNX Runtime does not let several threads use a CUDA graph, so the session has one of its own, and
    whoever calls `run` waits for it.

    Args:
        ort: the package onnxruntime.
        session: with every dimension of its inputs and outputs known.
        memory: see `SessionMaker.memory`.
    """

    def __init__(self, ort: Any, session: Any, memory: str) -> None:
        self._ort, self._session, self._memory = ort, session, memory
        self._input_specs, self._output_specs = specs(session.get_inputs()), specs(session.get_outputs())
        self._inputs = {name: self._allocated(spec) for name, spec in self._input_specs.items()}
        self._outputs = {name: self._allocated(spec) for name, spec in self._output_specs.items()}
        self._binding = session.io_binding()
        for name, value in self._inputs.items():
            self._binding.bind_ortvalue_input(name, value)
        for name, value in self._outputs.items():
            self._binding.bind_ortvalue_output(name, value)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cuda-graph")

    def run(self, inputs: Mapping[str, Value], names: Sequence[str], keep: Collection[str]) -> dict[str, Value]:
        """See `onnxruntime_session.run_on_device`.

        Raises:
            ValueError: an input is missing, or an array is not what the session takes.
        """
        return self._thread.submit(self._run, inputs, names, keep).result()

    def _run(self, inputs: Mapping[str, Value], names: Sequence[str], keep: Collection[str]) -> dict[str, Value]:
        for name, spec in self._input_specs.items():
            if name not in inputs:  # there is still the one of the run before
                raise ValueError(f"input {name} is missing")
            self._inputs[name].update_inplace(_checked(name, inputs[name], spec))
        self._session.run_with_iobinding(self._binding)
        return {name: self._copied(name) if name in keep else _on_host(self._outputs[name]) for name in names}

    def _copied(self, name: str) -> Any:
        """An output as it is now, in memory of its own that the next run leaves alone."""
        copy = self._allocated(self._output_specs[name])
        copy.update_inplace(self._outputs[name])
        return copy

    def _allocated(self, spec: TensorSpec) -> Any:
        return self._ort.OrtValue.ortvalue_from_shape_and_type(list(spec.shape), np.dtype(spec.dtype).type,
                                                               self._memory, 0)


def _checked(name: str, value: Value, spec: TensorSpec) -> Value:
    """`value`, whose bytes ONNX Runtime would copy whatever they mean."""
    if not isinstance(value, np.ndarray):  # of another graph of the bundle, and of its description
        return value
    if (value.dtype, value.shape) != spec:
        raise ValueError(f"input {name}: expected {spec.dtype} {spec.shape}, got {value.dtype} {value.shape}")
    return np.ascontiguousarray(value)


def _on_host(value: Any) -> NDArray[Any]:
    """An array that the next run leaves alone; of a value in the host's memory ONNX Runtime gives a view."""
    array: NDArray[Any] = value.numpy()
    return array if array.flags.owndata else array.copy()
