"""A session whose kernel launches are captured once and replayed: a CUDA graph."""
from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from threading import Lock
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from stmask_deploy.errors import DeviceError, StmaskError

from .backends import TensorSpec, Value, one_line
from .cuda_runtime import CudaEvent, CudaGraph, CudaStream
from .onnxruntime_session import OPENING, SessionMaker, spec_of, specs, zeros
from .pinned_memory import is_large, num_bytes

# In earlier ones every replay of GatherND, which instance graphs contained at first, reads host memory that has been
# freed, without an error (onnxruntime's pull request 32120).
MIN_VERSION = (1, 31)
WARMUP = 2  # runs before the capture: the first one selects kernels, after which others may need less memory


class _Slot(NamedTuple):
    """What one run in flight needs for itself."""

    end: CudaEvent
    rows: dict[str, NDArray[Any]]  # page-locked arrays for small outputs


class RecordedSession:
    """A session that is captured when it is opened. Runs replay it without ONNX Runtime.

    A run queues copies to the addresses that the capture used, its launches, and copies of the results, and then waits
    for its own end only. So runs of several threads follow each other on the GPU without a gap. Thread-safe; different
    sessions run concurrently.

    Args:
        maker: with `is_recorded` set.
        outputs: names of the outputs to compute.
        sizes: sizes of all dynamic dimensions of the graph.

    Raises:
        DeviceError: the graph cannot be captured, or not by this ONNX Runtime.
        InputError: see `SessionMaker.open`.
    """

    def __init__(self, maker: SessionMaker, outputs: Collection[str], sizes: Mapping[str, int]) -> None:
        _check_version(maker)
        runtime = maker.cuda_runtime()
        try:
            with OPENING:
                self._runtime, self._stream = runtime, CudaStream(runtime)
                self._session = maker.open(outputs, sizes, self._stream.address)
                self._input_specs = specs(self._session.get_inputs())
                self._output_specs = specs(self._session.get_outputs())
                for name, spec in {**self._input_specs, **self._output_specs}.items():
                    if None in spec.shape:
                        raise ValueError(f"the size of {name} is not fixed")
                self._maker = maker
                self._inputs = {name: self._allocated(spec) for name, spec in self._input_specs.items()}
                self._outputs = {name: self._allocated(spec) for name, spec in self._output_specs.items()}
                self._graph = self._captured()
        except StmaskError:
            raise
        except Exception as error:  # ONNX Runtime's exception classes have no narrower common base
            raise DeviceError(f"{maker.graph}: device {maker.device} cannot record it "
                              f"({one_line(error)}{maker._missing}); use device cuda") from error
        self._slots: list[_Slot] = []  # not in use
        self._lock = Lock()  # of the stream

    def run(self, inputs: Mapping[str, Value], names: Sequence[str], keep: Collection[str]) -> dict[str, Value]:
        """Compute outputs; those in `keep` stay on the device, as `OrtValue`s.

        Raises:
            ValueError: an input has the wrong type or shape.
            CudaError: the GPU fails.
        """
        given = {name: self._maker.pinned(_checked(name, inputs[name], spec))
                 for name, spec in self._input_specs.items()}
        try:
            slot = self._slots.pop()
        except IndexError:
            slot = self._new_slot()
        places = {name: self._place(name, slot, name in keep) for name in names}
        try:
            with self._lock:
                for name, value in given.items():
                    self._copy(self._inputs[name], value, self._input_specs[name])
                self._stream.launch(self._graph)
                for name, place in places.items():
                    self._copy(place, self._outputs[name], self._output_specs[name])
                self._stream.record(slot.end)
            slot.end.wait()
        except BaseException:  # Ctrl-C too
            self._stream.wait()  # for what was queued: its memory is about to be freed
            raise
        # Rows may be kept for long, and the slot is needed again.
        values = {name: slot.rows[name].copy() if slot.rows.get(name) is place else place
                  for name, place in places.items()}
        self._slots.append(slot)
        return values

    def _copy(self, to: Value, source: Value, spec: TensorSpec) -> None:
        self._stream.copy(_address(to), _address(source), num_bytes(spec))

    def _place(self, name: str, slot: _Slot, is_kept: bool) -> Value:
        """Where an output is to be copied."""
        spec = self._output_specs[name]
        if is_kept:
            return self._allocated(spec)
        return self._maker.page_locked(spec) if is_large(spec) else slot.rows[name]

    def _new_slot(self) -> _Slot:
        return _Slot(CudaEvent(self._runtime), {name: self._maker.page_locked(spec)
                                                for name, spec in self._output_specs.items() if not is_large(spec)})

    def _captured(self) -> CudaGraph:
        """The session's launches, with its inputs and outputs at their addresses."""
        binding = self._session.io_binding()
        values = zeros(self._input_specs)
        for name, value in self._inputs.items():
            self._copy(value, values[name], self._input_specs[name])
            binding.bind_ortvalue_input(name, value)
        self._stream.wait()
        for name, value in self._outputs.items():
            binding.bind_ortvalue_output(name, value)
        graph = capture(self._maker.ort, self._session, binding, self._stream)
        self._stream.launch(graph)  # the first launch may need memory that there is not
        self._stream.wait()
        return graph

    def _allocated(self, spec: TensorSpec) -> Any:
        return self._maker.ort.OrtValue.ortvalue_from_shape_and_type(list(spec.shape), np.dtype(spec.dtype).type,
                                                                     self._maker.memory, 0)


def _check_version(maker: SessionMaker) -> None:
    version: str = maker.ort.__version__
    if tuple(map(int, version.split(".")[:2])) < MIN_VERSION:
        raise DeviceError(f"device {maker.device} needs ONNX Runtime {'.'.join(map(str, MIN_VERSION))} or newer, and "
                          f"this is {version}; update onnxruntime-gpu, or use device cuda")


def capture(ort: Any, session: Any, binding: Any, stream: CudaStream) -> CudaGraph:
    """The kernel launches of a session, with the addresses in `binding`; the inputs there must hold valid values.

    Args:
        ort: the package onnxruntime.
        session: opened for `stream`.
        binding: all its inputs and outputs, on the device.
        stream: idle.
    """
    for _ in range(WARMUP):
        session.run_with_iobinding(binding)
    options = ort.RunOptions()
    options.log_severity_level = 4  # failures are raised as exceptions anyway
    options.add_run_config_entry("disable_synchronize_execution_providers", "1")  # a capture cannot be waited for
    return stream.capture(lambda: session.run_with_iobinding(binding, options))


def _address(value: Value) -> int:
    return int(value.ctypes.data if isinstance(value, np.ndarray) else value.data_ptr())


def _checked(name: str, value: Value, spec: TensorSpec) -> Value:
    """`value`, with its type and shape checked: bytes would be copied whatever they are."""
    found = spec_of(value)
    if found != spec:
        raise ValueError(f"input {name}: expected {spec.dtype} {spec.shape}, got {found.dtype} {found.shape}")
    return np.ascontiguousarray(value) if isinstance(value, np.ndarray) else value
