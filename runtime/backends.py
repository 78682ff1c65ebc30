"""One interface over the libraries that execute the graphs."""
from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from stmask_deploy.bundle import OWN_GRAPHS, BundleDescription
from stmask_deploy.errors import InputError, StmaskError

BACKENDS = ("onnxruntime", "openvino")
PRECISIONS = ("f32", "bf16", "f16", "int8")
Value: TypeAlias = Any  # an array, or where `Backend.run` was told to keep an output: what the backend made of it
CUDA_GRAPH = "cuda-graph"  # CUDA, with launches that are recorded once and replayed
DEVICES = {"onnxruntime": ("auto", "cpu", "cuda", CUDA_GRAPH, "tensorrt"), "openvino": ("auto", "cpu", "gpu")}


MAX_THREADS = 1024  # more than any machine has cores; libraries try to start what they are asked for


class TensorSpec(NamedTuple):
    """An input or output of a graph."""

    dtype: str  # as NumPy names it
    shape: tuple[int | None, ...]  # None: any size


class Backend(Protocol):
    """One loaded graph. Several threads may run it at once."""

    metadata: BundleDescription  # found in the graph itself
    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    device: str  # what is really used, in words: library and version, device, precision, threads
    is_on_host: bool  # it computes in the host's memory, and takes inputs of any size without preparing for each

    @property
    def input_names(self) -> tuple[str, ...]: ...

    @property
    def output_names(self) -> tuple[str, ...]: ...

    def run(self, inputs: Mapping[str, Value], outputs: Sequence[str] | None = None,
            keep: Collection[str] = ()) -> dict[str, Value]:
        """Compute outputs by name.

        Args:
            inputs: values for all inputs by name: arrays, or what a graph of the same bundle was told to keep.
            outputs: what to compute and return, in this order; None is everything. Nothing but what these need is
                computed. Each choice is loaded as a graph of its own when it is first asked for: make few.
            keep: outputs that may stay on the device. Their values are only good as inputs of this bundle's graphs; on
                a CPU they are arrays like all others. Names of outputs that are not returned change nothing.

        Returns:
            Values that outlive the next run.

        Raises:
            InputError: an output is not one of the graph's, or an input is missing.
            StmaskError: the library failed, for instance because an input has another shape.
        """
        ...


def chosen_outputs(known: Sequence[str], outputs: Sequence[str] | None) -> tuple[str, ...]:
    """The outputs that a run returns; `known` are the graph's own.

    Raises:
        InputError: one of them is not known.
    """
    if outputs is None:
        return tuple(known)
    unknown = [name for name in outputs if name not in known]
    if unknown:
        raise InputError(f"the graph has no output {', '.join(unknown)}; it has: {', '.join(known)}")
    return tuple(dict.fromkeys(outputs))


def check_inputs(known: Sequence[str], inputs: Mapping[str, Value]) -> None:
    """OpenVINO, and launches that are recorded, would take what an earlier run was given.

    Raises:
        InputError: one of the graph's own inputs, `known`, has no value.
    """
    missing = [name for name in known if name not in inputs]
    if missing:
        raise InputError(f"the graph needs {', '.join(missing)}, which was not given")


def check_request(name: str, device: str, precision: str, threads: int | None) -> None:
    """Raise InputError when a backend, device or precision is not known or cannot go together."""
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
    if threads is not None and not (isinstance(threads, int) and 1 <= threads <= MAX_THREADS):
        raise InputError(f"threads must be a whole number from 1 to {MAX_THREADS}, got {threads!r}")


def check_finite(graph: str, *columns: NDArray[Any]) -> None:
    """Raise StmaskError for what is not a number, which would not stop the trackers.

    It matches nothing, and every object would be a new one in every frame.
    """
    if not all(np.isfinite(column).all() for column in columns):
        raise StmaskError(f"the {graph} graph returned values that are not numbers; try precision f32, "
                          "or verify the bundle with stmask-verify")


def one_line(error: BaseException) -> str:
    """The part of a library's error message that says what happened, as one line of at most 200 characters."""
    lines = [line.strip() for line in str(error).splitlines()]
    told = [line for line in lines if line and not line.startswith("Exception from")]
    text = " ".join(told) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."
