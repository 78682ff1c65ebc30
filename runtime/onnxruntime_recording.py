"""A session whose kernels' launches are recorded once and replayed: a CUDA graph."""
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

# What all recorded sessions of the process go through. While ONNX Runtime records one, what other threads do on the GPU
# makes it fail: copies and allocations of other sessions too.
_GATE = Gate()


class _RecordingError(DeviceError):
    """A session was opened and could not be recorded."""


class RecordedSession:
    """A recording, made when it is opened and replayed by every run.

    It is made and replayed by the `recording_thread` of its graph, and freed there unless somebody keeps an exception
    that a run has raised. Whoever calls `run` waits for that thread, and brings large values of the host to the device
    and back while it runs for somebody else. Graphs run side by side, but for the time in which one is recorded. What
    else the process does on the GPU in the meantime, by other libraries or on device cuda, can spoil a recording.

    Args:
        maker: of sessions that are recorded.
        outputs: to compute.
        sizes: of all dimensions that the graph leaves open.

    Raises:
        DeviceError: the graph cannot be recorded.
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
        # What it has on the GPU is freed there too, and nobody waits for that: whoever collects garbage may be anyone.
        weakref.finalize(self, self._thread.post, free).atexit = False

    def run(self, inputs: Mapping[str, Value], names: Sequence[str], keep: Collection[str]) -> dict[str, Value]:
        """Compute outputs; those in `keep` stay on the device, as `OrtValue`s.

        Raises:
            ValueError: an input has another type or shape.
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
    """Inputs and outputs at the addresses they had when the launches were recorded.

    Values are copied to and from there, within the memory of the device or over the bus.

    Attributes:
        large: names of inputs and outputs that are worth a copy of their own.
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
            # ONNX Runtime records at the first run.
            zeros: dict[str, Value] = {name: np.zeros([size or 0 for size in spec.shape], spec.dtype)
                                       for name, spec in self._input_specs.items()}
            self.run(zeros, tuple(self._output_specs), ())
        except Exception as error:  # ONNX Runtime's own exception classes have no common base but this
            raise _RecordingError(f"{maker.graph}: device {maker.device} cannot record it ({one_line(error)}); use "
                                  "device cuda") from error

    def checked(self, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """The inputs, all of them; see `RecordedSession.run`."""
        return {name: _checked(name, inputs[name], spec) for name, spec in self._input_specs.items()}

    def run(self, inputs: Mapping[str, Value], names: Sequence[str], keep: Collection[str]) -> dict[str, Value]:
        """Replay the launches. Outputs in `keep` are copied within the device, the others to the host."""
        self._placing.run(inputs, self._inputs)
        self._session.run_with_iobinding(self._binding)
        copies = self._taking.run(self._outputs, {name: self._maker.memory if name in keep else None
                                                  for name in self._output_specs})
        return {name: copies[name] for name in names}

    def send(self, arrays: Mapping[str, Value]) -> dict[str, Value]:
        """Bring inputs to the device. Any thread may, in the middle of a run."""
        kinds = {name: self._input_specs[name] for name in arrays}
        return self._mover(kinds).run({name: self._maker.pinned(array) for name, array in arrays.items()},
                                      dict.fromkeys(kinds, self._maker.memory))

    def fetch(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Bring outputs that were kept to the host. Any thread may, in the middle of a run."""
        kinds = {name: self._output_specs[name] for name in values}
        return self._mover(kinds).run(values, {name: self._maker.empty_pinned(spec) for name, spec in kinds.items()})

    def _mover(self, kinds: Mapping[str, TensorSpec]) -> Copies:
        """Copies of inputs or outputs; which of them is only known when they are first asked for."""
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
    """The process's thread of all recorded sessions of graphs of that name.

    ONNX Runtime lets one thread alone use a session's CUDA graph.
    """
    return DaemonThread(f"cuda-graph-{graph}")


def _recorded(maker: SessionMaker, outputs: Collection[str], sizes: Mapping[str, int]) -> _Recording:
    """A recording, in the layout that the maker asks for or else in the other one.

    Some kernels that cuDNN takes for some sizes do what a recording does not allow; for another layout it takes others.
    """
    failure = ""
    for channels_last in (True, False) if maker.precision == "f16" else (maker.channels_last,):
        try:
            return _Recording(replace(maker, channels_last=channels_last), outputs, sizes)
        except _RecordingError as error:  # which holds the session, that must be gone before there is another one
            failure = failure or str(error)
    raise DeviceError(failure)


def _checked(name: str, value: Value, spec: TensorSpec) -> Value:
    """`value`, of which ONNX Runtime would copy the bytes in whatever shape they are."""
    is_array = isinstance(value, np.ndarray)
    dtype, shape = (str(value.dtype), value.shape) if is_array else (spec.dtype, tuple(value.shape()))
    if (dtype, shape) != spec:
        raise ValueError(f"input {name}: expected {spec.dtype} {spec.shape}, got {dtype} {shape}")
    return np.ascontiguousarray(value) if is_array else value  # its type is ONNX Runtime's to check

