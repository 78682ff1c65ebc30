"""One interface to the libraries that execute the graphs."""
from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from importlib.util import find_spec
from numbers import Integral
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stmask_deploy.bundle import OWN_GRAPHS, BundleDescription
from stmask_deploy.environment import available_cpus
from stmask_deploy.errors import DeviceError, InputError, StmaskError
from stmask_deploy.wording import shown

BACKENDS = ("onnxruntime", "openvino")
PRECISIONS = ("f32", "bf16", "f16", "int8")
Value: TypeAlias = Any  # an array or, for outputs that `Backend.run` keeps on the device, the backend's own type
CUDA_GRAPH = "cuda-graph"  # CUDA, with kernel launches captured once and replayed
DEVICES = {"onnxruntime": ("auto", "cpu", "cuda", CUDA_GRAPH, "tensorrt"), "openvino": ("auto", "cpu", "gpu")}


# Where ONNX Runtime raised an error (file, line and the function's signature), and what it appends to errors of CUDA.
_CODE_PLACE = re.compile(r"\S*/onnxruntime/core/\S+:\d+ [^()]*\([^()]*\)(?: const)?(?: \[with .*?\])? | ?; GPU=-?\d.*$")

# More of them only wait for one another, whole minutes for a frame if there are hundreds; the libraries do not check.
THREADS_PER_CPU = 4


class TensorSpec(NamedTuple):
    """Type and shape of a graph's input or output."""

    dtype: str  # NumPy name
    shape: tuple[int | None, ...]  # None: any size


class Backend(Protocol):
    """One loaded graph; thread-safe."""

    metadata: BundleDescription  # as stored in the graph itself
    inputs: Mapping[str, TensorSpec]  # by name, in the graph's order
    outputs: Mapping[str, TensorSpec]
    device: str  # what is actually used, for display: library and version, device, precision, threads
    is_on_host: bool  # it computes in host memory and needs no preparation for each new input size
    # For inputs of dynamic size: share of the largest size from which on a run of all of it takes less time; or inf.
    whole_from: float

    def run(self, inputs: Mapping[str, Value], outputs: Sequence[str] | None = None,
            keep: Collection[str] = ()) -> dict[str, Value]:
        """Run the graph and return its outputs by name.

        Args:
            inputs: a value for every input: an array, or an output kept on the device by a graph of the same bundle.
            outputs: names of the outputs to return, in this order; None returns all. Only what they depend on is
                computed. Each distinct set is loaded as a separate graph on first use, so use few.
            keep: outputs that may stay on the device. Their values can only be passed to graphs of the same bundle; on
                a CPU they are ordinary arrays. Names that are not in `outputs` are ignored.

        Returns:
            Values that stay valid after the next run.

        Raises:
            InputError: the graph has no such output, or an input is missing.
            StmaskError: the library failed, for instance because an input has the wrong shape.
        """
        ...


def chosen_outputs(known: Collection[str], outputs: Sequence[str] | None) -> tuple[str, ...]:
    """The names of the outputs that a run returns, without duplicates; all of `known`, the graph's own, for None.

    Raises:
        InputError: an output is not in `known`.
    """
    if outputs is None:
        return tuple(known)
    unknown = [name for name in outputs if name not in known]
    if unknown:
        raise InputError(f"the graph has no output {', '.join(unknown)}; it has: {', '.join(known)}")
    return tuple(dict.fromkeys(outputs))


def check_inputs(known: Collection[str], inputs: Mapping[str, Value]) -> None:
    """Check that every input has a value; OpenVINO and captured CUDA graphs would silently reuse the previous one.

    Raises:
        InputError: one of the graph's inputs, `known`, has no value.
    """
    missing = [name for name in known if name not in inputs]
    if missing:
        raise InputError(f"the graph needs {', '.join(missing)}, which was not given")


def check_request(name: str, device: str, precision: str, threads: int | None) -> None:
    """Raise InputError if a backend, device, precision or thread count is invalid, or they cannot be combined."""
    if name not in BACKENDS:
        raise InputError(f"backend {name!r} is not known; known: {', '.join(BACKENDS)}")
    if device not in DEVICES[name]:
        other = [backend for backend, devices in DEVICES.items() if device in devices]
        hint = f"; {device} belongs to backend {other[0]}" if other else ""
        raise InputError(f"device {device!r} is not one of backend {name}: {', '.join(DEVICES[name])}{hint}")
    if precision not in PRECISIONS:
        raise InputError(f"precision {precision!r} is not known; known: {', '.join(PRECISIONS)}")
    if name == "onnxruntime" and precision not in ("f32", *OWN_GRAPHS[name]):
        raise InputError(f"backend onnxruntime does not compute in {precision}, only in "
                         f"{', '.join(('f32', *OWN_GRAPHS[name]))}; for {precision} use backend openvino")
    if name == "onnxruntime" and precision == "int8" and device not in ("auto", "cpu"):
        raise InputError(f"int8 graphs of onnxruntime are for the CPU; for device {device} use precision f16")
    most = THREADS_PER_CPU * available_cpus()
    if threads is not None and (isinstance(threads, bool) or not isinstance(threads, Integral)
                                or not 1 <= threads <= most):
        raise InputError(f"threads must be a whole number from 1 to {most} ({THREADS_PER_CPU} for each CPU that this "
                         f"process may use), got {shown(threads)}")


def not_installed(name: str, error: ImportError, extras: str) -> DeviceError:
    """The error where the library of backend `name` cannot be imported; it names the other one if that is there."""
    other = "".join(f", or use backend {other}" for other in BACKENDS if other != name and find_spec(other))
    return DeviceError(f"backend {name} is not installed ({one_line(error)}); install {extras}{other}")


def check_finite(graph: str, *columns: NDArray[Any]) -> None:
    """Raise StmaskError if a value is NaN or infinite.

    The trackers would not fail on NaN: it matches nothing, so every frame would yield new objects.
    """
    if not all(np.isfinite(column).all() for column in columns):
        raise StmaskError(f"the {graph} graph returned values that are not numbers; try precision f32 and an "
                          "empty --cache, or verify the bundle with stmask-verify")


def one_line(error: BaseException) -> str:
    """The informative part of a library's error message, on one line of at most 200 characters, from both its ends."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith("Exception from")]
    text = _CODE_PLACE.sub("", " ".join(told)[:4000]) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:99]} ... {text[-96:]}"
