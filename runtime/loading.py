"""Opening a bundle: all graphs are loaded, and checked to belong together, before anything runs."""
from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from stmask_deploy.bundle import (
    DESCRIPTION_FILE,
    INSTANCE_MAPS,
    INSTANCE_OUTPUTS,
    OWN_GRAPHS,
    PROTOTYPE_INPUTS,
    PROTOTYPE_OUTPUTS,
    ROLES,
    TEMPORAL_MAPS,
    BundleDescription,
    read_description,
)
from stmask_deploy.environment import available_cpus
from stmask_deploy.errors import InputError
from stmask_deploy.graph_tensors import graph_tensors

from .backends import Backend, TensorSpec, check_request
from .in_turn import InTurn
from .opening import open_backend

MAX_GRAPH_BYTES = 2**31  # upper limit for an ONNX file
_HOSTS = ("auto", "cpu")  # devices on which a graph may compute in host memory
# Options of stmask-export, by the precision whose graphs they write.
_EXPORT_OPTIONS = {"f16": "--half", "int8": "--int8 --calibration VIDEO"}


@dataclass(frozen=True)
class Bundle:
    """A bundle opened on one backend."""

    description: BundleDescription
    frame: Backend
    prototypes: Backend | None  # None: the frame graph computes the prototypes
    instances: Backend | None  # None: the frame graph computes the mask coefficients and embeddings
    temporal: Backend | None  # None for models or runs without temporal fusion
    may_overlap: bool = False  # the graphs do not compete for cores, so several may run at the same time

    @property
    def roles(self) -> tuple[str, ...]:
        """Roles of the graphs that are loaded."""
        return tuple(role for role in ROLES if getattr(self, role) is not None)


def open_bundle(folder: str | Path, backend: str = "onnxruntime", *, device: str = "auto", precision: str = "f32",
                threads: int | None = None, cache: Path | None = None, with_temporal: bool = True,
                is_whole: bool = True) -> Bundle:
    """Load and check the graphs of the bundle in `folder`.

    Args:
        folder: written by `stmask-export`.
        backend, device, precision, threads, cache: see `opening.open_backend`.
        with_temporal: False skips the temporal graph, for runs that do not need it.
        is_whole: False loads the frame graph without the outputs that a run does not read, which saves computing them.

    Raises:
        InputError: the folder is not a bundle, a graph is missing, damaged or not exported by this tool, the graphs
            come from different exports, or their inputs and outputs do not match the description.
        DeviceError: see `opening.open_backend`.
    """
    check_request(backend, device, precision, threads)
    folder = Path(folder)
    description = read_description(folder)
    roles = {role: description.graph_path(folder, role, backend, precision) for role in description.roles
             if (with_temporal or role != "temporal") and (role != "prototypes" or device in _HOSTS)}
    for path in roles.values():
        check_file(path, backend, precision)

    def opened(role: str) -> Backend:
        outputs = run_outputs(description, roles) if role == "frame" and not is_whole else None
        graph = open_backend(backend, roles[role], device=device, precision=precision, threads=threads, cache=cache,
                             outputs=outputs)
        if graph.metadata.export_id != description.export_id:
            raise InputError(f"{roles[role]} is of export {graph.metadata.export_id} but the bundle is of export "
                             f"{description.export_id}: files of two exports are mixed; export the checkpoint again")
        _check_description(roles[role], graph.metadata, description)
        _check_tensors(roles[role], graph, *expected_tensors(description, role, outputs))
        return graph

    graphs: dict[str, Backend] = {}
    if "prototypes" in roles:  # where a graph computes is only known once it is open
        for role in ("prototypes", "frame"):
            graphs[role] = opened(role)
            if not graphs[role].is_on_host:  # each window size would need preparation: use the frame graph's prototypes
                del roles["prototypes"]
                graphs.clear()
                break
    graphs |= {role: opened(role) for role in roles if role not in graphs}
    may_overlap = not graphs["frame"].is_on_host or (threads is not None and 2 * threads <= available_cpus())
    if not may_overlap:
        turn = Lock()  # shared by this model and all its forks
        graphs = {role: InTurn(graph, turn) for role, graph in graphs.items()}
    return Bundle(description, graphs["frame"], graphs.get("prototypes"), graphs.get("instances"),
                  graphs.get("temporal"), may_overlap)


def run_outputs(description: BundleDescription, roles: Collection[str]) -> tuple[str, ...]:
    """The frame graph's outputs that a run with the graphs of `roles` reads."""
    unread = ((PROTOTYPE_OUTPUTS if "prototypes" in roles else PROTOTYPE_INPUTS)
              + (INSTANCE_OUTPUTS if "instances" in roles else INSTANCE_MAPS)
              + (() if "temporal" in roles else TEMPORAL_MAPS))
    _, outputs = description.tensor_names("frame")
    return tuple(name for name in outputs if name not in unread)


def _check_description(graph: Path, own: BundleDescription, description: BundleDescription) -> None:
    """Check the network's settings against the graph's own copy; class names and tracker settings may differ."""
    def fixed(one: BundleDescription) -> dict[str, Any]:
        model = {f"model.{name}": value for name, value in one.model.to_dict().items()
                 if name not in ("class_names", "tracking")}
        return {**model, "model.num_classes": one.model.num_classes, "candidate_threshold": one.candidate_threshold,
                "max_candidates": one.max_candidates}

    expected, found = fixed(own), fixed(description)
    wrong = [name for name, value in expected.items() if found[name] != value]
    if wrong:
        raise InputError(f"{DESCRIPTION_FILE} was modified: {', '.join(wrong[:3])} does not match "
                         f"{graph.name}; export the checkpoint again")


def check_file(path: Path, backend: str, precision: str) -> None:
    """Check that a graph of a bundle exists, with its weights.

    Raises:
        InputError: a file is missing, or its size rules out a graph.
    """
    if not os.path.isfile(path):
        options = ["--openvino"] if backend == "openvino" else []
        options += [_EXPORT_OPTIONS[precision]] if precision in OWN_GRAPHS[backend] else []
        cure = f"stmask-export CHECKPOINT {' '.join(options)} makes it" if options else "export again"
        raise InputError(f"the bundle has no {path.parent.name}/{path.name} for backend {backend}: {cure}")
    parts = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
    for part in parts:
        if not os.path.isfile(part):
            raise InputError(f"{part} is missing; export the checkpoint again")
        size = part.stat().st_size
        if not 0 < size <= MAX_GRAPH_BYTES:
            raise InputError(f"{part} has {size} bytes and cannot be a graph; export the checkpoint again")


def expected_tensors(description: BundleDescription, role: str, kept: Collection[str] | None = None
                     ) -> tuple[Mapping[str, TensorSpec], Mapping[str, TensorSpec]]:
    """Inputs and outputs of the graph of `role` as exported; `kept` limits the frame graph's outputs, None is all."""
    inputs, outputs = description.tensor_names(role)
    if role == "frame" and kept is not None:
        outputs = tuple(name for name in outputs if name in kept)
    tensors = graph_tensors(description, role)

    def specs(names: tuple[str, ...]) -> dict[str, TensorSpec]:
        return {name: TensorSpec(tensors[name].dtype, tuple(None if isinstance(size, str) else size
                                                            for size in tensors[name].shape)) for name in names}

    return specs(inputs), specs(outputs)


def _check_tensors(path: Path, graph: Backend, inputs: Mapping[str, TensorSpec],
                   outputs: Mapping[str, TensorSpec]) -> None:
    """Raise one InputError that lists all differences between a graph's tensors and the expected ones."""
    misses = [f"unknown input {name}" for name in graph.inputs if name not in inputs]
    for kind, expected, found in (("input", inputs, graph.inputs), ("output", outputs, graph.outputs)):
        for name, want in expected.items():
            have = found.get(name)
            if have is None:
                misses.append(f"{kind} {name} is missing")
            elif have.dtype != want.dtype or not _same_shape(have.shape, want.shape):
                misses.append(f"{kind} {name}: expected {_words(want)}, found {_words(have)}")
    if misses:
        raise InputError(f"{path} does not fit the bundle's description: {'; '.join(misses)}; "
                         "export the checkpoint again")


def _same_shape(a: tuple[int | None, ...], b: tuple[int | None, ...]) -> bool:
    return len(a) == len(b) and all(x is None or y is None or x == y for x, y in zip(a, b, strict=True))


def _words(spec: TensorSpec) -> str:
    return f"{spec.dtype} ({', '.join('n' if size is None else str(size) for size in spec.shape)})"
