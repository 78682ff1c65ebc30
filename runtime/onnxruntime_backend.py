"""Graphs in ONNX Runtime, on the CPU or on an NVIDIA GPU."""
from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from stmask_deploy.bundle import BundleDescription
from stmask_deploy.errors import DeviceError, InputError, StmaskError

from .backends import CUDA_GRAPH, Value, check_inputs, chosen_outputs, one_line
from .interrupt import raise_interrupt
from .onnxruntime_providers import CPU, WORDS, choose_provider
from .onnxruntime_recording import RecordedSession
from .onnxruntime_session import SessionMaker, bucket, describe, run_on_device, run_on_host, specs


class OnnxRuntimeBackend:
    """A `Backend` on ONNX Runtime sessions; the arguments are those of `opening.open_backend`.

    On a GPU the number of objects is rounded up to a power of two, and each of these sizes has a session of its own:
    all shapes are then known when it is loaded, and its kernels are chosen for them once.
    """

    def __init__(self, graph: Path, *, device: str, precision: str, threads: int | None, cache: Path | None,
                 outputs: Collection[str] | None) -> None:
        ort = _import_library()
        # On a GPU every 8-bit layer would compute in float, between conversions.
        provider, note = choose_provider(ort, "cpu" if precision == "int8" else device)
        self._maker = SessionMaker(ort, graph, provider, precision, threads, cache, device == CUDA_GRAPH)
        try:
            # A session is only asked what the graph is like where it is not the one that runs.
            session = (self._maker.on_host() if self._maker.is_recorded else self._maker).open(outputs)
        except DeviceError as error:
            if device != "auto":
                raise
            self._maker, note = replace(self._maker, provider=CPU), f" ({error})"
            session = self._maker.open(outputs)
        text = describe(session)
        if text is None:
            raise InputError(f"{graph} was not exported by this tool (it carries no description); use stmask-export")
        self._maker = replace(self._maker, description=text)
        self.metadata = BundleDescription.from_json(text, f"the description in {graph}")
        self.inputs, self.outputs = specs(session.get_inputs()), specs(session.get_outputs())
        self.is_on_host = self._maker.is_on_host
        words = WORDS.get(self._maker.provider, f"CPU, {_threads_in_words(threads)}")
        graphs = " graphs" if self._maker.is_recorded else ""
        self.device = f"ONNX Runtime {ort.__version__}, {precision}, {words}{graphs}{note}"
        # The input with any number of rows, and what the graph calls that number: on a host nothing is rounded up.
        self._open_rows = {} if self.is_on_host else {
            entry.name: entry.shape[0] for entry in session.get_inputs() if isinstance(entry.shape[0], str)}
        # What runs a session, by outputs and sizes.
        self._runners: dict[Any, Callable[..., dict[str, Value]]] = {}
        self._lock = Lock()
        if self._maker.is_recorded:  # what cannot be recorded is told now, not in the middle of a video
            self._runner_for(self.output_names, dict.fromkeys(self._open_rows.values(), 1))
        elif not self._open_rows:
            self._runners[frozenset(self.outputs), ()] = self._runner(session)

    @property
    def input_names(self) -> tuple[str, ...]:
        return tuple(self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(self.outputs)

    def run(self, inputs: Mapping[str, Value], outputs: Sequence[str] | None = None,
            keep: Collection[str] = ()) -> dict[str, Value]:
        """See `Backend.run`."""
        names = chosen_outputs(self.output_names, outputs)
        check_inputs(self.input_names, inputs)
        if not names:
            return {}
        rows = {name: len(inputs[name]) for name in self._open_rows if name in inputs}
        feeds = {name: _padded(value, bucket(rows[name])) if name in rows else value for name, value in inputs.items()}
        run = self._runner_for(names, {self._open_rows[name]: bucket(count) for name, count in rows.items()})
        try:
            values = run(feeds, names, keep)
        except Exception as error:  # ONNX Runtime's own exception classes have no common base but this
            raise StmaskError(f"ONNX Runtime failed in the graph: {one_line(error)}") from error
        if not rows:
            return values
        count = max(rows.values())
        return {name: value[:count] if self._has_open_rows(name) else value for name, value in values.items()}

    def _has_open_rows(self, output: str) -> bool:
        return self.outputs[output].shape[:1] == (None,)

    def _runner_for(self, names: tuple[str, ...], sizes: Mapping[str, int]) -> Callable[..., dict[str, Value]]:
        key = (frozenset(names), tuple(sizes.items()))
        with self._lock:
            if key not in self._runners:
                self._runners[key] = (RecordedSession(self._maker, names, sizes).run if self._maker.is_recorded
                                      else self._runner(self._maker.open(names, sizes)))
            return self._runners[key]

    def _runner(self, session: Any) -> Callable[..., dict[str, Value]]:
        """A function of inputs, names and what to keep."""
        maker = self._maker
        if maker.is_on_host:
            return partial(run_on_host, session)
        output_specs = specs(session.get_outputs())

        def run(inputs: Mapping[str, Value], names: Sequence[str], keep: Collection[str]) -> dict[str, Value]:
            return run_on_device(session, {name: maker.pinned(value) for name, value in inputs.items()}, {
                name: maker.memory if name in keep else maker.empty_pinned(output_specs[name]) for name in names})

        return run


def _padded(rows: Any, size: int) -> Any:
    """`rows` with as many more of zeros as make `size`; boxes without area cost a graph nothing."""
    return np.concatenate([rows, np.zeros((size - len(rows), *rows.shape[1:]), rows.dtype)])


def _import_library() -> Any:
    handled = sys.exc_info()[1]
    try:
        import onnxruntime
    except ImportError as error:
        raise_interrupt(error, handled)
        raise DeviceError(f"backend onnxruntime is not installed ({one_line(error)}); "
                          "install stmask-deploy[cpu], or stmask-deploy[cuda] for NVIDIA GPUs") from error
    return onnxruntime


def _threads_in_words(threads: int | None) -> str:
    if threads is None:
        return "one thread a core"
    return f"{threads} thread{'s' if threads > 1 else ''}"
