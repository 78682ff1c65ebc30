"""One ONNX Runtime session: opened for a provider, and run with data on the host or the device."""
from __future__ import annotations

import os
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stmask_deploy.bundle import METADATA_KEY
from stmask_deploy.errors import DeviceError, InputError
from stmask_deploy.wording import is_unicode

from .backends import CUDA_GRAPH, TensorSpec, Value, one_line
from .cuda_runtime import CudaError, CudaRuntime, cuda_runtime
from .onnx_subgraph import keep_outputs
from .onnxruntime_providers import CPU, TENSORRT, WORDS, load_cuda, provider_options, skipped_optimizers
from .pinned_memory import is_large, pinned_memory

# Held while a session is opened on a GPU, first run, or captured: the first two may wait for the whole device, which no
# capture survives.
OPENING = RLock()
_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(uint8)": "uint8", "tensor(int64)": "int64"}


@dataclass(frozen=True)
class SessionMaker:
    """Opens sessions of one graph with common settings."""

    ort: Any  # the package onnxruntime
    graph: Path
    provider: str
    precision: str
    threads: int | None
    cache: Path | None
    is_recorded: bool = False  # captured as a CUDA graph, see `onnxruntime_recording`
    description: str | None = None  # in the file when it was first checked; sessions may be opened much later

    def open(self, outputs: Collection[str] | None = None, sizes: Mapping[str, int] | None = None,
             stream: int | None = None) -> Any:
        """A session that computes `outputs` (None: all), with its dynamic dimensions fixed to `sizes`.

        CUDA computes in the stream at the address `stream` (None: in one of its own).

        Raises:
            InputError: this ONNX Runtime cannot load the file, or the file has been replaced since it was checked.
            DeviceError: the provider cannot run the graph, or ONNX Runtime would use another provider.
        """
        options = self._options()
        for name, size in (sizes or {}).items():
            options.add_free_dimension_override_by_name(name, size)
        providers = provider_options(self.provider, self.precision, self.cache, stream)
        try:
            data = self.graph.read_bytes()  # ONNX Runtime opens no file whose name is not text
            model = data if outputs is None else keep_outputs(data, outputs)
            with nullcontext() if self.provider == CPU else OPENING:
                session = self.ort.InferenceSession(model, options, providers=providers, enable_fallback=0,
                                                    disabled_optimizers=skipped_optimizers(self.provider))
        except Exception as error:  # ONNX Runtime's exception classes have no narrower common base
            if self.provider != CPU:
                self.on_host().open(outputs, sizes)  # raises InputError if the file itself is at fault
                raise self.refusal(error) from error
            raise InputError(f"{self.graph}: ONNX Runtime {self.ort.__version__} cannot load it ({one_line(error)}); "
                             "export the checkpoint again or update onnxruntime") from error
        used = session.get_providers()
        if used[0] != self.provider:
            raise DeviceError(f"device {self.device} was asked for but ONNX Runtime would use "
                              f"{used[0]}{self._missing}; check the NVIDIA driver, CUDA, cuDNN and TensorRT, or use "
                              "device cpu")
        if self.description not in (None, describe(session)):
            raise InputError(f"{self.graph} was replaced while it was in use; run again")
        # The whole file, which ONNX Runtime would keep for the session's lifetime just for that fallback.
        session._model_bytes = None
        return session

    def _options(self) -> Any:
        options = self.ort.SessionOptions()
        options.log_severity_level = 4  # failures are raised as exceptions anyway
        options.intra_op_num_threads = self.threads or 0
        options.inter_op_num_threads = 1
        # Other graphs and NumPy share the cores: threads that keep spinning after a run would slow down what runs next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # Memory patterns are kept for every number of tracked objects ever seen, so memory would grow with the video.
        options.enable_mem_pattern = False
        # Exported graphs hold all their weights. Others may name files, which are then looked for in this folder alone,
        # not in the working directory and not outside; nowhere if its name is not text, which ONNX Runtime cannot take.
        folder = str(self.graph.absolute().parent)
        options.add_session_config_entry("session.model_external_initializers_file_folder_path",
                                         folder if is_unicode(folder) else os.devnull)
        return options

    def check_gpu(self) -> None:
        """Raise DeviceError if there is no GPU, which is told sooner than by opening a session."""
        # On Windows a library that is not found before ONNX Runtime has loaded it would be taken for missing later too.
        runtime = cuda_runtime(self._cuda_version) if sys.platform == "linux" else None
        if runtime is None:
            return
        try:
            runtime.check_device()
        except CudaError as error:
            raise DeviceError(f"device {self.device} finds no GPU ({one_line(error)}{self._missing}); check the NVIDIA "
                              "driver, or use device cpu") from error

    def refusal(self, error: Exception) -> DeviceError:
        """What to raise where the provider fails with `error` before it has computed anything."""
        advice = "check that TensorRT 10 is installed" if self.provider == TENSORRT else (
            "check the driver, cuDNN, and that the GPU's memory is free")
        return DeviceError(f"{self.graph}: device {self.device} cannot run it ({one_line(error)}{self._missing}); "
                           f"{advice}, or use device {self._other_device}")

    def on_host(self) -> SessionMaker:
        """The same settings for sessions on the CPU."""
        return replace(self, provider=CPU, is_recorded=False)

    @property
    def device(self) -> str:
        """The device as the user names it."""
        return CUDA_GRAPH if self.is_recorded else WORDS.get(self.provider, "cpu").lower()

    @property
    def _missing(self) -> str:
        """Missing CUDA libraries, which ONNX Runtime's own messages do not always mention."""
        missing = load_cuda(self.ort)
        return f"; {missing}; stmask-deploy[cuda] brings CUDA's libraries" if missing else ""

    @property
    def _other_device(self) -> str:
        """The device to suggest if this one fails."""
        return "cuda" if self.is_recorded or self.provider == TENSORRT else "cpu"

    @property
    def is_on_host(self) -> bool:
        """Whether values are in host memory, so that none has to be copied."""
        return self.provider == CPU

    @property
    def memory(self) -> str:
        """ONNX Runtime's name for the memory that the provider computes in."""
        return "cpu" if self.provider == CPU else "cuda"

    def cuda_runtime(self) -> CudaRuntime:
        """CUDA's runtime library.

        Raises:
            DeviceError: it cannot be loaded.
        """
        runtime = cuda_runtime(self._cuda_version)
        if runtime is None:
            raise DeviceError(f"device {self.device} needs CUDA's runtime library, which cannot be "
                              f"loaded{self._missing}; use device {self._other_device}")
        return runtime

    @property
    def _cuda_version(self) -> str:
        """Version of CUDA that ONNX Runtime was built for; empty for none."""
        return str(getattr(self.ort, "cuda_version", ""))

    def empty_pinned(self, spec: TensorSpec) -> NDArray[Any] | None:
        """Page-locked memory for a large value on the host; None if ordinary memory suffices or must be used."""
        if not is_large(spec):
            return None
        memory = pinned_memory(self._cuda_version)
        return None if memory is None else memory.empty(spec)

    def page_locked(self, spec: TensorSpec) -> NDArray[Any]:
        """An uninitialised array of any size, in page-locked memory as long as there is any."""
        memory = pinned_memory(self._cuda_version)
        place = None if memory is None else memory.empty(spec)
        return np.empty([size or 0 for size in spec.shape], spec.dtype) if place is None else place

    def pinned(self, value: Value) -> Value:
        """A copy of a large array in page-locked memory; anything else unchanged.

        ONNX Runtime holds the GIL while it copies an array to a device, which is much faster from page-locked memory.
        """
        place = self.empty_pinned(spec_of(value)) if isinstance(value, np.ndarray) else None
        if place is None:
            return value
        np.copyto(place, value)  # releases the GIL
        return place


def describe(session: Any) -> str | None:
    """The bundle description stored in a session's graph; None if the graph was not exported by this tool."""
    text: str | None = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    return text


def run_on_host(session: Any, inputs: Mapping[str, Value], names: Sequence[str],
                keep: Collection[str]) -> dict[str, Value]:
    """Run a session in host memory, where kept outputs are ordinary arrays too."""
    return dict(zip(names, session.run(names, inputs), strict=True))


def run_on_device(session: Any, inputs: Mapping[str, Value], places: Mapping[str, Any]) -> dict[str, Value]:
    """Run with inputs from the host or the device, and outputs to either.

    Args:
        session: an ONNX Runtime session.
        inputs: arrays, or `OrtValue`s, which are used in place.
        places: output name -> where to put it: ONNX Runtime's name of the memory for a new `OrtValue`; the array to
            write into; or None for a new array.
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
        else:
            binding.bind_output(name, "cpu", 0, place.dtype.type, place.shape, place.ctypes.data)
    # This returns only after all its streams have finished, so outputs in host memory of any kind can be read.
    session.run_with_iobinding(binding)
    return {name: value.numpy() if place is None else place if isinstance(place, np.ndarray) else value
            for (name, place), value in zip(places.items(), binding.get_outputs(), strict=True)}


def specs(entries: Sequence[Any]) -> Mapping[str, TensorSpec]:
    """Types and shapes of a session's inputs or outputs (`entries`), by name."""
    return {entry.name: TensorSpec(_DTYPES.get(entry.type, entry.type),
                                   tuple(size if isinstance(size, int) else None for size in entry.shape))
            for entry in entries}


def zeros(inputs: Mapping[str, TensorSpec]) -> dict[str, NDArray[Any]]:
    """Values for a graph's inputs that are valid for every graph: others could be row indices out of range.

    Dynamic dimensions have size 4.
    """
    return {name: np.zeros([4 if size is None else size for size in spec.shape], spec.dtype)
            for name, spec in inputs.items()}


def spec_of(value: Value) -> TensorSpec:
    """Type and shape of an array or `OrtValue`."""
    if isinstance(value, np.ndarray):
        return TensorSpec(str(value.dtype), value.shape)
    return TensorSpec(_DTYPES.get(value.data_type(), value.data_type()), tuple(value.shape()))
