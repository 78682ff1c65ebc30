"""Opening one graph with the requested library."""
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
            works without preparation; cuda-graph is CUDA with kernel launches captured once and replayed.
        precision: f32 | bf16 | f16 | int8 of the arithmetic. With onnxruntime, and for int8 with either library,
            `graph` must have been exported in this precision. Layers that int8 leaves in float are f32 with
            onnxruntime; openvino takes the device's own choice, such as bf16 on CPUs that have it.
        threads: CPU threads; None leaves the choice to the library.
        cache: folder for what openvino and tensorrt compile, to start faster next time; None keeps nothing.
        outputs: load the graph as if it had only these; names it lacks are ignored. None: all.

    Raises:
        InputError: an argument is invalid, or this library cannot load the file.
        DeviceError: the library is not installed, or would not use the requested device or precision.
    """
    check_request(name, device, precision, threads)
    count = None if threads is None else int(threads)  # libraries refuse NumPy's numbers
    backend: Callable[..., Backend]  # imported lazily: only the library in use has to be installed
    if name == "openvino":
        from .openvino_backend import OpenVinoBackend as backend
    else:
        from .onnxruntime_backend import OnnxRuntimeBackend as backend
    try:
        return backend(graph, device=device, precision=precision, threads=count, cache=cache, outputs=outputs)
    except UnicodeDecodeError as error:  # a name or the description in the graph
        raise InputError(f"{graph} is damaged ({error.reason}); export the checkpoint again") from error
