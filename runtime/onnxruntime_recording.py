"""A session whose kernel launches are captured once and replayed: a CUDA graph."""
from __future__ import annotations

import weakref
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import cache
from threading import Lock
from typing import Any

import numpy as np

from stmask_deploy.errors import DeviceError

from .backends import TensorSpec, Value, one_line
from .daemon_thread import DaemonThread
from .gate import Gate
from .onnxruntime_copies import Copies
from .onnxruntime_session import SessionMaker, specs
from .pinned_memory import is_large

# Shared by all recorded sessions of the process. Any GPU activity of other threads, including copies and allocations of
# other sessions, makes a capture fail.
_GATE = Gate()


class _RecordingError(DeviceError):
    """A session was opened but could not be captured."""


class RecordedSession:
    """A session that is captured when it is opened and replayed by every run.

    The `recording_thread` of its graph captures and replays it, and also frees it, unless an exception raised by a run
    is still referenced. Callers of `run` wait for that thread; they copy large values between host and device
    themselves, while it may be running for another caller. Different graphs run concurrently, except during a capture.
    Other GPU activity of the process during a capture (other libraries, device cuda) can make it fail.

    Args:
        maker: with `is_recorded` set.
        outputs: names of the outputs to compute.
        sizes: sizes of all dynamic dimensions of the graph.

    Raises:
        DeviceError: the graph cannot be captured.
        InputError: see `SessionMaker.open`.
    """

    def __init__(self, maker: SessionMaker, outputs: Collection[str], sizes: Mapping[str, int]) -> None:
        self._thread, gate = recording_thread(maker.graph.stem), _GATE
        held: list[_Recording] = []

        def record() -> None:
            with gate.alone():
                held.append(_recorded(maker, outputs, sizes))

        def free() -> None:
            with gate.passing():
                held.clear()

        self._thread.call(record)
        self._held, self._gate = held, gate
        # GPU memory is freed in that thread too, without waiting: the garbage collector may run in any thread.
        weakref.finalize(self, self._thread.post, free).atexit = False

    def run(self, inputs: Mapping[str, Value], names: Sequence[str], keep: Collection[str]) -> dict[str, Value]:
        """Compute outputs; those in `keep` stay on the device, as `OrtValue`s.

        Raises:
            ValueError: an input has the wrong type or shape.
        """
        recording = self._held[0]
        given = recording.checked(inputs)
        sent = {name: value for name, value in given.items()
                if name in recording.large and isinstance(value, np.ndarray)}
        fetched = recording.large.intersection(names).difference(keep)

        def replay() -> dict[str, Value]:
            with self._gate.passing():
                return recording.run(given, names, fetched.union(keep))

        if sent:
            with self._gate.passing():
                given |= recording.send(sent)
        values = self._thread.call(replay)
        if fetched:
            with self._gate.passing():
                values |= recording.fetch({name: values[name] for name in fetched})
        return values


class _Recording:
    """A captured session with its inputs and outputs at the fixed addresses used during the capture.

    Values are copied to and from these addresses, within device memory or over the bus.

    Attributes:
        large: names of the inputs and outputs that are worth a separate copy.
    """

    def __init__(self, maker: SessionMaker, outputs: Collection[str], sizes: Mapping[str, int]) -> None:
        self._maker = maker
        self._session = maker.open(outputs, sizes)
        self._input_specs, self._output_specs = specs(self._session.get_inputs()), specs(self._session.get_outputs())
        try:
            for name, spec in {**self._input_specs, **self._output_specs}.items():
                if None in spec.shape:
                    raise ValueError(f"the size of {name} is not fixed")
            self._inputs = {name: self._allocated(spec) for name, spec in self._input_specs.items()}
            self._outputs = {name: self._allocated(spec) for name, spec in self._output_specs.items()}
            self._binding = self._session.io_binding()
            for name, value in self._inputs.items():
                self._binding.bind_ortvalue_input(name, value)
            for name, value in self._outputs.items():
                self._binding.bind_ortvalue_output(name, value)
            self._placing, self._taking = (Copies(maker, kind) for kind in (self._input_specs, self._output_specs))
            self.large = frozenset(name for name, spec in {**self._input_specs, **self._output_specs}.items()
                                   if is_large(spec))
            self._movers: dict[frozenset[str], Copies] = {}
            self._lock = Lock()
            # ONNX Runtime captures the first run.
            zeros: dict[str, Value] = {name: np.zeros([size or 0 for size in spec.shape], spec.dtype)
                                       for name, spec in self._input_specs.items()}
            self.run(zeros, tuple(self._output_specs), ())
        except Exception as error:  # ONNX Runtime's exception classes have no narrower common base
            raise _RecordingError(f"{maker.graph}: device {maker.device} cannot record it ({one_line(error)}); use "
                                  "device cuda") from error

    def checked(self, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """The session's inputs, with types and shapes checked; see `RecordedSession.run`."""
        return {name: _checked(name, inputs[name], spec) for name, spec in self._input_specs.items()}

    def run(self, inputs: Mapping[str, Value], names: Sequence[str], keep: Collection[str]) -> dict[str, Value]:
        """Replay the launches. Outputs in `keep` are copied within the device, the others to the host."""
        self._placing.run(inputs, self._inputs)
        self._session.run_with_iobinding(self._binding)
        copies = self._taking.run(self._outputs, {name: self._maker.memory if name in keep else None
                                                  for name in self._output_specs})
        return {name: copies[name] for name in names}

    def send(self, arrays: Mapping[str, Value]) -> dict[str, Value]:
        """Copy inputs to the device; callable from any thread, even during a run."""
        kinds = {name: self._input_specs[name] for name in arrays}
        return self._mover(kinds).run({name: self._maker.pinned(array) for name, array in arrays.items()},
                                      dict.fromkeys(kinds, self._maker.memory))

    def fetch(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Copy kept outputs to the host; callable from any thread, even during a run."""
        kinds = {name: self._output_specs[name] for name in values}
        return self._mover(kinds).run(values, {name: self._maker.empty_pinned(spec) for name, spec in kinds.items()})

    def _mover(self, kinds: Mapping[str, TensorSpec]) -> Copies:
        """The copying session for a set of inputs or outputs, opened on first use."""
        with self._lock:
            key = frozenset(kinds)
            if key not in self._movers:
                self._movers[key] = Copies(self._maker, kinds)
            return self._movers[key]

    def _allocated(self, spec: TensorSpec) -> Any:
        return self._maker.ort.OrtValue.ortvalue_from_shape_and_type(list(spec.shape), np.dtype(spec.dtype).type,
                                                                     self._maker.memory, 0)


@cache
def recording_thread(graph: str) -> DaemonThread:
    """The thread for all captured sessions of graphs with this name, shared by the whole process.

    ONNX Runtime allows only a single thread to use a session's CUDA graph.
    """
    return DaemonThread(f"cuda-graph-{graph}")


def _recorded(maker: SessionMaker, outputs: Collection[str], sizes: Mapping[str, int]) -> _Recording:
    """A captured session; for f16, channels last or, if that fails, channels first.

    For some sizes cuDNN selects kernels that cannot be captured; for the other layout it selects different ones.
    """
    failure = ""
    for channels_last in (True, False) if maker.precision == "f16" else (maker.channels_last,):
        try:
            return _Recording(replace(maker, channels_last=channels_last), outputs, sizes)
        except _RecordingError as error:  # it references the session, which must be freed before another is opened
            failure = failure or str(error)
    raise DeviceError(failure)


def _checked(name: str, value: Value, spec: TensorSpec) -> Value:
    """`value`, with its type and shape checked: ONNX Runtime would copy its bytes whatever the shape."""
    is_array = isinstance(value, np.ndarray)
    dtype, shape = (str(value.dtype), value.shape) if is_array else (spec.dtype, tuple(value.shape()))
    if (dtype, shape) != spec:
        raise ValueError(f"input {name}: expected {spec.dtype} {spec.shape}, got {dtype} {shape}")
    return np.ascontiguousarray(value) if is_array else value  # ONNX Runtime checks the type of an `OrtValue`

