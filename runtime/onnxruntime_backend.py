"""Graphs in ONNX Runtime, on the CPU or on an NVIDIA GPU."""
from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from threading import Lock
from typing import Any

from stmask_deploy.bundle import BundleDescription
from stmask_deploy.errors import DeviceError, InputError, StmaskError
from stmask_deploy.wording import counted
from stmask_deploy.wrapped_interrupt import raise_interrupt

from .backends import CUDA_GRAPH, Value, check_inputs, chosen_outputs, not_installed, one_line
from .cuda_runtime import CudaError
from .onnxruntime_providers import CPU, CUDA, TENSORRT, WORDS, choose_provider
from .onnxruntime_recording import RecordedSession
from .onnxruntime_session import OPENING, SessionMaker, describe, run_on_device, run_on_host, specs, zeros
from .row_padding import RowPadding, power_of_two


class OnnxRuntimeBackend:
    """A `Backend` on ONNX Runtime sessions; the arguments are those of `opening.open_backend`.

    On a GPU the number of objects is padded to a power of two, and each of these sizes has its own session: all shapes
    are then static when it is loaded, and kernels are selected for them only once.
    """

    def __init__(self, graph: Path, *, device: str, precision: str, threads: int | None, cache: Path | None,
                 outputs: Collection[str] | None) -> None:
        ort = _import_library()
        # On a GPU, 8-bit layers would be dequantised and computed in float.
        provider, note = choose_provider(ort, "cpu" if precision == "int8" else device)
        maker = SessionMaker(ort, graph, provider, precision, threads, cache, device == CUDA_GRAPH)
        self._lock = Lock()
        self._is_free = device == "auto"  # to choose how to run
        for choice in _choices(maker) if self._is_free else [maker]:
            try:
                self._open(choice, outputs)
                break
            except DeviceError as error:
                if not self._is_free or choice.provider == CPU:
                    raise
                note = f" ({error})"
        words = WORDS.get(self._maker.provider, f"CPU, {_threads_in_words(threads)}")
        graphs = " graphs" if self._maker.is_recorded else ""
        self.device = f"ONNX Runtime {ort.__version__}, {precision}, {words}{graphs}{note}"

    def _open(self, maker: SessionMaker, outputs: Collection[str] | None) -> None:
        """Open the graph with `maker`'s settings.

        Raises:
            DeviceError: they cannot be used.
            InputError: the file cannot be used.
        """
        if not maker.is_on_host:
            maker.check_gpu()
        # For captured CUDA graphs, this session only serves to inspect the graph.
        session = (maker.on_host() if maker.is_recorded else maker).open(outputs)
        text = describe(session)
        if text is None:
            raise InputError(f"{maker.graph} was not exported by this tool (it carries no description); use "
                             "stmask-export")
        self._maker = replace(maker, description=text)
        self.metadata = BundleDescription.from_json(text, f"the description in {maker.graph}")
        self.inputs, self.outputs = specs(session.get_inputs()), specs(session.get_outputs())
        self.is_on_host, self.whole_from = self._maker.is_on_host, inf
        # Inputs with a dynamic number of rows -> name of that dimension; empty on the host, where nothing is padded.
        self._open_rows = {} if self.is_on_host else {
            entry.name: entry.shape[0] for entry in session.get_inputs() if isinstance(entry.shape[0], str)}
        self._padding = RowPadding({name: self.inputs[name] for name in self._open_rows}, self.outputs, power_of_two)
        # Functions that run a session, by outputs and sizes.
        self._runners: dict[Any, Callable[..., dict[str, Value]]] = {}
        names, sizes = tuple(self.outputs), dict.fromkeys(self._open_rows.values(), 1)
        # What a GPU cannot do is reported now, not in the middle of a video.
        if self._maker.is_recorded:
            run: Callable[..., dict[str, Value]] = RecordedSession(self._maker, names, sizes).run
        else:
            if self._maker.provider == TENSORRT and sizes:
                return  # every size takes minutes, and this one may never occur
            session = self._maker.open(names, sizes) if sizes else session
            run = _runner(self._maker, session)
            if self._maker.provider == CUDA:
                _try(self._maker, session, run)
        self._runners[_key(names, sizes)] = run

    def run(self, inputs: Mapping[str, Value], outputs: Sequence[str] | None = None,
            keep: Collection[str] = ()) -> dict[str, Value]:
        """See `Backend.run`."""
        names = chosen_outputs(self.outputs, outputs)
        check_inputs(self.inputs, inputs)
        if not names:
            return {}
        feeds = self._padding.padded(inputs)
        run = self._runner_for(names, {size: len(feeds[name]) for name, size in self._open_rows.items()})
        try:
            values = run(feeds, names, keep)
        except Exception as error:
            if not _is_of_library(error):
                raise
            raise StmaskError(f"ONNX Runtime failed in the graph: {one_line(error)}") from error
        return self._padding.cut(values, inputs)

    def _runner_for(self, names: tuple[str, ...], sizes: Mapping[str, int]) -> Callable[..., dict[str, Value]]:
        key = _key(names, sizes)
        with self._lock:
            if key not in self._runners:
                self._runners[key] = self._new_runner(names, sizes)
            return self._runners[key]

    def _new_runner(self, names: tuple[str, ...], sizes: Mapping[str, int]) -> Callable[..., dict[str, Value]]:
        if self._maker.is_recorded:
            try:
                return RecordedSession(self._maker, names, sizes).run
            except DeviceError:
                if not self._is_free:
                    raise
        plain = replace(self._maker, is_recorded=False)
        return _runner(plain, plain.open(names, sizes))


def _key(names: Collection[str], sizes: Mapping[str, int]) -> Any:
    return frozenset(names), tuple(sizes.items())


def _runner(maker: SessionMaker, session: Any) -> Callable[..., dict[str, Value]]:
    """A function (inputs, names, keep) -> outputs that runs the session."""
    if maker.is_on_host:
        return partial(run_on_host, session)
    output_specs = specs(session.get_outputs())

    def run(inputs: Mapping[str, Value], names: Sequence[str], keep: Collection[str]) -> dict[str, Value]:
        return run_on_device(session, {name: maker.pinned(value) for name, value in inputs.items()}, {
            name: maker.memory if name in keep else maker.empty_pinned(output_specs[name]) for name in names})

    return run


def _try(maker: SessionMaker, session: Any, run: Callable[..., dict[str, Value]]) -> None:
    """Run a new session once: libraries such as cuDNN are loaded by a run only.

    Raises:
        DeviceError: that fails.
    """
    try:
        with OPENING:
            run(zeros(specs(session.get_inputs())), tuple(specs(session.get_outputs())), ())
    except Exception as error:  # ONNX Runtime's exception classes have no narrower common base
        raise maker.refusal(error) from error


def _is_of_library(error: Exception) -> bool:
    """Whether ONNX Runtime raised it, whose classes have no narrower common base; a handler of a signal may raise any.
    """
    return type(error).__module__.startswith("onnxruntime") or isinstance(error, CudaError) \
        or type(error) in (RuntimeError, ValueError, TypeError, MemoryError)


def _choices(maker: SessionMaker) -> list[SessionMaker]:
    """What device auto tries, the fastest first."""
    recorded = [replace(maker, is_recorded=True)] if maker.provider == CUDA else []
    return [*recorded, maker, replace(maker, provider=CPU)]


def _import_library() -> Any:
    handled = sys.exc_info()[1]
    try:
        import onnxruntime
    except ImportError as error:
        raise_interrupt(error, handled)
        extras = "stmask-deploy[cpu], or stmask-deploy[cuda] for NVIDIA GPUs"
        raise not_installed("onnxruntime", error, extras) from error
    return onnxruntime


def _threads_in_words(threads: int | None) -> str:
    return "one thread per core" if threads is None else counted(threads, "thread")
