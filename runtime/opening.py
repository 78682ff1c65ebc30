"""Opening one graph with the library that is asked for."""
from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from stmask_deploy.errors import InputError

from .backends import Backend, check_request


def open_backend(name: str, graph: Path, *, device: str = "auto", precision: str = "f32",
                 threads: int | None = None, cache: Path | None = None,
                 outputs: Collection[str] | None = None) -> Backend:
    """Load one graph.

    Args:
        name: onnxruntime | openvino.
        graph: the `.onnx` file, or the `.xml` of an OpenVINO IR.
        device: auto | cpu | cuda, cuda-graph, tensorrt (onnxruntime) | gpu (openvino). auto takes the fastest that
            works without preparation; cuda-graph is CUDA with launches that are recorded once and replayed.
        precision: f32 | bf16 | f16 | int8 of the arithmetic; `graph` has to be of that precision for onnxruntime, and
            for int8. What int8 leaves in float is f32 with onnxruntime; openvino takes what is fastest on the device:
            bf16 on a CPU that multiplies matrices of it, else f32.
        threads: CPU threads; None leaves the choice to the library.
        cache: folder for what openvino and tensorrt compile, so that the next start takes less; None keeps nothing.
        outputs: load the graph as if it had only these; those that it lacks are passed over. None: all.

    Raises:
        InputError: an argument is unknown, or the file is not a graph that this library loads.
        DeviceError: the library is not installed, or the device or precision asked for is not the one used.
    """
    check_request(name, device, precision, threads)
    backend: Callable[..., Backend]  # only what is used has to be installed
    if name == "openvino":
        from .openvino_backend import OpenVinoBackend as backend
    else:
        from .onnxruntime_backend import OnnxRuntimeBackend as backend
    try:
        return backend(graph, device=device, precision=precision, threads=threads, cache=cache, outputs=outputs)
    except UnicodeDecodeError as error:  # a name or the description in the graph
        raise InputError(f"{graph} is damaged ({error.reason}); export the checkpoint again") from error
