"""One ONNX Runtime session: opened for a provider, and run where its data is."""
from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stmask_deploy.bundle import METADATA_KEY
from stmask_deploy.errors import DeviceError, InputError

from .backends import CUDA_GRAPH, TensorSpec, Value, one_line
from .onnx_subgraph import keep_outputs
from .onnxruntime_providers import CPU, CUDA, WORDS, load_cuda, provider_options
from .pinned_memory import is_large, pinned_memory

_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8", "tensor(int64)": "int64"}


@dataclass(frozen=True)
class SessionMaker:
    """What all sessions of one graph have in common."""

    ort: Any  # the package onnxruntime
    graph: Path
    provider: str
    precision: str
    threads: int | None
    cache: Path | None
    is_recorded: bool = False  # as a CUDA graph, see `onnxruntime_recording`
    channels_last: bool = True  # where that is faster, see `provider_options`
    description: str | None = None  # that the file had when it was checked; sessions may be opened much later

    def open(self, outputs: Collection[str] | None = None, sizes: Mapping[str, int] | None = None) -> Any:
        """A session that computes `outputs`, None for all, with its open dimensions fixed to `sizes`.

        Raises:
            InputError: the file is not a graph that this ONNX Runtime loads, or another one than was checked.
            DeviceError: the provider fails with it, or ONNX Runtime would use another one.
        """
        options = self._options()
        for name, size in (sizes or {}).items():
            options.add_free_dimension_override_by_name(name, size)
        providers = provider_options(self.provider, self.precision, self.cache, self.is_recorded, self.channels_last)
        try:
            model = str(self.graph) if outputs is None else keep_outputs(self.graph.read_bytes(), outputs)
            session = self.ort.InferenceSession(model, options, providers=providers, enable_fallback=0)
        except Exception as error:  # ONNX Runtime's own exception classes have no common base but this
            if self.provider != CPU:
                self.on_host().open(outputs, sizes)  # a file that is at fault says so here
                raise DeviceError(f"{self.graph}: device {self.device} cannot run it "
                                  f"({one_line(error)}{self._missing}); check the driver and that its memory is "
                                  f"free, or use device {self._other_device}") from error
            raise InputError(f"{self.graph}: ONNX Runtime {self.ort.__version__} cannot load it ({one_line(error)}); "
                             "export the checkpoint again or update onnxruntime") from error
        used = session.get_providers()
        if used[0] != self.provider:
            raise DeviceError(f"device {self.device} was asked for but ONNX Runtime would use "
                              f"{used[0]}{self._missing}; check the NVIDIA driver, CUDA, cuDNN and TensorRT, or use "
                              "device cpu")
        if self.is_recorded and not records(session):
            raise DeviceError(f"device {self.device} was asked for but this ONNX Runtime {self.ort.__version__} "
                              f"records nothing; use device {self._other_device}")
        if self.description not in (None, describe(session)):
            raise InputError(f"{self.graph} was replaced while it was in use; run again")
        # Kept by ONNX Runtime for that fallback alone: the whole file, for as long as the session lives.
        session._model_bytes = None
        return session

    def open_copies(self, model: bytes) -> Any:
        """A session beside those of the graph, of an encoded model that only copies; it is never recorded."""
        options = self._options()
        options.graph_optimization_level = self.ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        return self.ort.InferenceSession(model, options, providers=provider_options(self.provider, "f32", None),
                                         enable_fallback=0)

    def _options(self) -> Any:
        options = self.ort.SessionOptions()
        options.log_severity_level = 4  # every failure arrives as an exception, with its message
        options.intra_op_num_threads = self.threads or 0
        options.inter_op_num_threads = 1
        # Two graphs and NumPy share the cores: threads that spin after a run take them from whoever runs next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # Patterns are kept for every number of tracked objects ever seen: memory that would grow with the video.
        options.enable_mem_pattern = False
        return options

    def on_host(self) -> SessionMaker:
        """The same for sessions in the host's memory."""
        return replace(self, provider=CPU, is_recorded=False)

    @property
    def device(self) -> str:
        """The device as it is asked for."""
        return CUDA_GRAPH if self.is_recorded else WORDS.get(self.provider, "cpu").lower()

    @property
    def _missing(self) -> str:
        """Libraries of CUDA that are not there, which ONNX Runtime's own messages do not always tell."""
        missing = load_cuda(self.ort)
        return f"; {missing}; stmask-deploy[cuda] brings CUDA's libraries" if missing else ""

    @property
    def _other_device(self) -> str:
        """What to try where the device fails."""
        return "cuda" if self.is_recorded else "cpu"

    @property
    def is_on_host(self) -> bool:
        """Whether values are in the host's memory, so that none has to be moved."""
        return self.provider == CPU

    @property
    def memory(self) -> str:
        """ONNX Runtime's name of the memory that the provider computes in."""
        return "cpu" if self.provider == CPU else "cuda"

    def empty_pinned(self, spec: TensorSpec) -> NDArray[Any] | None:
        """Page-locked memory for a large value of the host; None where ordinary memory will do, or has to."""
        if not is_large(spec):
            return None
        memory = pinned_memory(getattr(self.ort, "cuda_version", ""))
        return None if memory is None else memory.empty(spec)

    def pinned(self, value: Value) -> Value:
        """A copy in page-locked memory of a large array; anything else as it is.

        ONNX Runtime holds Python's lock while it brings an array to a device, which is so much shorter from there.
        """
        place = None
        if isinstance(value, np.ndarray):
            place = self.empty_pinned(TensorSpec(str(value.dtype), value.shape))
        if place is None:
            return value
        np.copyto(place, value)  # others go on meanwhile
        return place


def describe(session: Any) -> str | None:
    """The bundle's description in a session's graph; None where it was not exported by this tool."""
    text: str | None = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    return text


def records(session: Any) -> bool:
    """Whether CUDA records the launches of `session`'s first run."""
    return bool(session.get_provider_options().get(CUDA, {}).get("enable_cuda_graph") == "1")


def run_on_host(session: Any, inputs: Mapping[str, Value], names: Sequence[str],
                keep: Collection[str]) -> dict[str, Value]:
    """Run where everything is in the host's memory, so that what is kept is an array like the rest."""
    return dict(zip(names, session.run(names, inputs), strict=True))


def run_on_device(session: Any, inputs: Mapping[str, Value], places: Mapping[str, Any]) -> dict[str, Value]:
    """Run with inputs from the host or the device, and outputs to either.

    Args:
        session: an ONNX Runtime session.
        inputs: arrays, or `OrtValue`s, which stay where they are.
        places: of the outputs to compute: the memory that a new `OrtValue` is made in, as ONNX Runtime calls it; the
            `OrtValue` or array to write into; or None, for an array of its own.
    """
    binding = session.io_binding()
    for name, value in inputs.items():
        if isinstance(value, np.ndarray):
            binding.bind_cpu_input(name, np.asarray(value, order="C"))
        else:
            binding.bind_ortvalue_input(name, value)
    for name, place in places.items():
        if place is None:
            binding.bind_output(name)
        elif isinstance(place, str):
            binding.bind_output(name, place)
        elif isinstance(place, np.ndarray):
            binding.bind_output(name, "cpu", 0, place.dtype.type, place.shape, place.ctypes.data)
        else:
            binding.bind_ortvalue_output(name, place)
    # It returns when its streams have done all they were given: what is on the host can be read, wherever it lies.
    session.run_with_iobinding(binding)
    return {name: value.numpy() if place is None else place if isinstance(place, np.ndarray) else value
            for (name, place), value in zip(places.items(), binding.get_outputs(), strict=True)}


def specs(entries: Sequence[Any]) -> Mapping[str, TensorSpec]:
    """A session's inputs or outputs, as it lists them, by name."""
    return {entry.name: TensorSpec(_DTYPES.get(entry.type, entry.type),
                                   tuple(size if isinstance(size, int) else None for size in entry.shape))
            for entry in entries}


def bucket(rows: int) -> int:
    """How many rows a graph is run with that is given `rows`: the next power of two, so that few sizes occur."""
    return 1 << max(rows - 1, 0).bit_length()
