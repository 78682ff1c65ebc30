"""Graphs in ONNX Runtime, on the CPU or on an NVIDIA GPU."""
from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from stmask_deploy.bundle import METADATA_KEY, BundleDescription
from stmask_deploy.errors import DeviceError, InputError, StmaskError

from .backends import TensorSpec, Value, chosen_outputs, one_line
from .onnx_subgraph import keep_outputs

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8", "tensor(int64)": "int64"}
_CPU, _CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


class OnnxRuntimeBackend:
    """A `Backend` on an ONNX Runtime session; the arguments are those of `backends.open_backend`."""

    def __init__(self, graph: Path, *, device: str, precision: str, threads: int | None) -> None:
        ort = _import_library()
        provider, note = _choose_provider(ort, device)
        try:
            self._session = _open_session(ort, graph, provider, threads)
        except DeviceError as error:
            if device != "auto":
                raise
            provider, note = _CPU, f" ({error})"
            self._session = _open_session(ort, graph, provider, threads)
        text = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        if text is None:
            raise InputError(f"{graph} was not exported by this tool (it carries no description); use stmask-export")
        self.metadata = BundleDescription.from_json(text, f"the description in {graph}")
        self.inputs: Mapping[str, TensorSpec] = {entry.name: _spec(entry) for entry in self._session.get_inputs()}
        self.outputs: Mapping[str, TensorSpec] = {entry.name: _spec(entry) for entry in self._session.get_outputs()}
        words = "CUDA" if provider == _CUDA else f"CPU, {_threads_in_words(threads)}"
        self.device = f"ONNX Runtime {ort.__version__}, {precision}, {words}{note}"
        self._open_part = partial(_open_part, ort, graph, provider, threads)
        self._parts: dict[frozenset[str], Any] = {frozenset(self.outputs): self._session}  # sessions by outputs
        self._lock = Lock()

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
        if not names:
            return {}
        session = self._session_for(names)
        try:
            values = session.run(names, dict(inputs))
        except Exception as error:  # ONNX Runtime's own exception classes have no common base but this
            raise StmaskError(f"ONNX Runtime failed in the graph: {one_line(error)}") from error
        return dict(zip(names, values, strict=True))

    def _session_for(self, names: tuple[str, ...]) -> Any:
        with self._lock:
            key = frozenset(names)
            if key not in self._parts:
                self._parts[key] = self._open_part(names)
            return self._parts[key]


def _import_library() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise DeviceError(f"backend onnxruntime is not installed ({one_line(error)}); "
                          "install stmask-deploy[cpu], or stmask-deploy[gpu] for NVIDIA GPUs") from error
    return onnxruntime


def _choose_provider(ort: Any, device: str) -> tuple[str, str]:
    """The execution provider for `device`, and what there is to say about the choice."""
    available = ort.get_available_providers()
    if device == "cpu":
        return _CPU, ""
    if _CUDA in available:
        return _CUDA, " (chosen by auto)" if device == "auto" else ""
    if device == "auto":
        return _CPU, " (chosen by auto)"
    raise DeviceError(f"device cuda is not available in this ONNX Runtime {ort.__version__}; available: "
                      f"{', '.join(available)}; install stmask-deploy[gpu] instead of stmask-deploy[cpu], or use cpu")


def _open_part(ort: Any, graph: Path, provider: str, threads: int | None, outputs: Collection[str]) -> Any:
    """A session that computes only these outputs."""
    try:
        part = keep_outputs(graph.read_bytes(), outputs)
    except (OSError, ValueError) as error:
        raise InputError(f"{graph} cannot be reduced to {', '.join(outputs)} ({one_line(error)}); "
                         "export the checkpoint again") from error
    return _open_session(ort, graph, provider, threads, part)


def _open_session(ort: Any, graph: Path, provider: str, threads: int | None, model: bytes | None = None) -> Any:
    """A session on the file `graph`, or on `model` where a part of it is meant."""
    options = ort.SessionOptions()
    options.log_severity_level = 4  # every failure arrives as an exception, with its message
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    # Two graphs and NumPy share the cores: threads that spin after a run take them from whoever runs next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    # Patterns are kept for every number of tracked objects ever seen: memory that would grow with the video.
    options.enable_mem_pattern = False
    providers: list[Any] = [_CPU]
    if provider == _CUDA:
        # TF32 would round the convolutions' inputs to 10 bits, which is not the f32 that was asked for. The search
        # for the fastest convolution would start again for every number of tracked objects, hence the heuristic.
        providers.insert(0, (_CUDA, {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}))
    try:
        session = ort.InferenceSession(str(graph) if model is None else model, options, providers=providers)
    except Exception as error:  # see `run`
        raise InputError(f"{graph}: ONNX Runtime {ort.__version__} cannot load it ({one_line(error)}); "
                         "export the checkpoint again or update onnxruntime") from error
    used = session.get_providers()
    if used[0] != provider:
        raise DeviceError(f"device cuda was asked for but ONNX Runtime would use {used[0]}; check the NVIDIA driver, "
                          "CUDA and cuDNN, or use device cpu")
    session.disable_fallback()
    return session


def _spec(entry: Any) -> TensorSpec:
    shape = tuple(size if isinstance(size, int) else None for size in entry.shape)
    return TensorSpec(_DTYPES.get(entry.type, entry.type), shape)


def _threads_in_words(threads: int | None) -> str:
    if threads is None:
        return "one thread a core"
    return f"{threads} thread{'s' if threads > 1 else ''}"
