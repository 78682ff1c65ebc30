"""The int8 graphs of a bundle: quantisation, comparison with f32, and a report by layer."""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from stmask_deploy.bundle import BundleDescription, has_own_graph
from stmask_deploy.errors import InputError, StmaskError
from stmask_deploy.runtime.loading import open_bundle

from .int8_gate import Judgement, Limits, clip_video, judge, read_clip_annotations
from .int8_layers import OTHERS, Layer, instance_layers, layer_lines
from .int8_onnx import quantize_onnx
from .int8_recording import MIN_FRAMES, Recording, check_length, record, track_clip
from .openvino_ir import save_ir

if TYPE_CHECKING:
    import openvino

PRECISION = "int8"


@dataclass(frozen=True)
class Int8Options:
    """How int8 graphs are calibrated and judged."""

    calibration: Path  # video file or image folder
    annotations: Path | None = None  # of that video, in YouTube-VIS format
    frames: int = 100  # maximum number of calls of each graph to calibrate with
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise InputError(f"calibration-frames must be at least 1, got {self.frames}")


@dataclass(frozen=True)
class Int8Graphs:
    """One backend's quantised graphs, not yet written, and their layers."""

    graphs: Mapping[str, Any]  # role -> onnx.ModelProto or openvino.Model
    layers: tuple[Layer, ...]
    operators: Mapping[str, int]  # operator -> number of nodes in all graphs after quantisation


def check_int8(options: Int8Options, description: BundleDescription) -> None:
    """Check the prerequisites before anything is traced.

    Raises:
        InputError: the calibration clip cannot be read or is too short, its annotations cannot be read or do not match
            the clip or the network, or nncf is not installed but OpenVINO graphs are to be written.
    """
    from stmask_deploy.runtime.sources import open_source

    with open_source(options.calibration) as source:  # a Path: never a camera
        check_length(options.calibration, sum(1 for _ in islice(source, MIN_FRAMES)))
        if options.annotations is not None:
            # The number of frames announced by a video file is an estimate.
            count = None if source.kind == "video" else source.num_frames
            annotations = read_clip_annotations(options.annotations, description.model)
            clip_video(annotations, options.calibration, (source.height, source.width), count)
    if description.openvino_weights is not None:
        from .int8_openvino import require_nncf

        require_nncf()


def add_int8(folder: Path, description: BundleDescription, options: Int8Options, graphs: Mapping[str, onnx.ModelProto],
             irs: Mapping[str, openvino.Model], info: Callable[[str], dict[str, str]],
             say: Callable[[str], None]) -> dict[str, Any]:
    """Write int8 graphs beside the f32 ones, and judge them.

    Args:
        folder: the bundle, with its f32 graphs.
        description: the bundle's description.
        options: how to calibrate and judge.
        graphs: role -> f32 graph.
        irs: the same for OpenVINO; empty if no IR is written.
        info: role -> metadata of the graph.
        say: called with lines of text that report the progress.

    Returns:
        The report for export_report.json.

    Raises:
        InputError: the clip or its annotations are unusable.
        StmaskError: int8 exceeds the limits, or a library cannot quantise a graph.
    """
    roles = [role for role in description.roles if has_own_graph(role, "onnxruntime", PRECISION)]
    recording = record(folder, options.calibration, options.frames, roles)
    say(f"int8: calibrated with {max(map(len, recording.feeds.values()))} of the {len(recording.run.frames)} "
        f"frames of {options.calibration}")
    backends = quantize(recording, graphs, irs, description)
    write_int8(folder, description, backends, info)
    judgements = judge_int8(folder, options, recording, description, backends)
    for backend, made in backends.items():
        for line in (*layer_lines(backend, made.layers), f"  against f32: {judgements[backend].line(options.limits)}"):
            say(line)
    return int8_report(options, recording, backends, judgements)


def quantize(recording: Recording, graphs: Mapping[str, onnx.ModelProto], irs: Mapping[str, openvino.Model],
             description: BundleDescription) -> dict[str, Int8Graphs]:
    """Backend -> its int8 graphs, for all roles that were recorded. `irs` is empty if no IR is written.

    Raises:
        StmaskError: a library cannot quantise a graph.
    """
    model = description.model
    made = {role: quantize_onnx(graphs[role], role, feeds, model) for role, feeds in recording.feeds.items()}
    has_instances = "instances" in description.roles
    found = {"onnxruntime": _collected(made, has_instances, lambda graph: (node.op_type for node in graph.graph.node))}
    if irs:
        from .int8_openvino import quantize_openvino

        made = {role: quantize_openvino(irs[role], role, feeds, model) for role, feeds in recording.feeds.items()}
        found["openvino"] = _collected(made, has_instances, lambda ir: (one.get_type_name() for one in ir.get_ops()))
    return found


def _collected(made: Mapping[str, tuple[Any, tuple[Layer, ...]]], has_instances: bool, kinds: Callable[[Any], Any]
               ) -> Int8Graphs:
    layers = [layer for _, layers in made.values() for layer in layers]
    return Int8Graphs({role: graph for role, (graph, _) in made.items()},
                      (*layers, *(instance_layers(made["frame"][1]) if has_instances else ())),
                      Counter(kind for graph, _ in made.values() for kind in kinds(graph)))


def write_int8(folder: Path, description: BundleDescription, backends: Mapping[str, Int8Graphs],
               info: Callable[[str], dict[str, str]]) -> None:
    """Write the graphs into the bundle in `folder`.

    Args:
        folder: the bundle.
        description: the bundle's description.
        backends: returned by `quantize`.
        info: role -> metadata of the graph.
    """
    for backend, made in backends.items():
        for role, graph in made.graphs.items():
            path = description.graph_path(folder, role, backend, PRECISION)
            if backend == "openvino":
                save_ir(graph, path, description.openvino_weights == "f16", info(role), description.export_id)
            else:
                del graph.metadata_props[:]
                onnx.helper.set_model_props(graph, info(role))
                onnx.save(graph, path)


def judge_int8(folder: Path, options: Int8Options, recording: Recording, description: BundleDescription,
               backends: Mapping[str, Int8Graphs]) -> dict[str, Judgement]:
    """Run the written graphs of each backend on the calibration clip and compare the results with f32.

    Raises:
        InputError: the annotations do not match the clip, or f32 shows nothing to compare with.
        StmaskError: a backend exceeds the limits; the message contains the figures.
    """
    annotations = None if options.annotations is None else read_clip_annotations(options.annotations,
                                                                                 description.model)
    found = {}
    for backend in backends:
        run = track_clip(open_bundle(folder, backend, device="cpu", precision=PRECISION), options.calibration)
        found[backend] = judge(recording.run, run, annotations)
    missed = [f"{backend} {judgement.line(options.limits)}" for backend, judgement in found.items()
              if not judgement.passed(options.limits)]
    if missed:
        raise StmaskError(f"int8 differs too much from f32 on {options.calibration}: {'; '.join(missed)}; "
                          "nothing was written")
    return found


def int8_report(options: Int8Options, recording: Recording, backends: Mapping[str, Int8Graphs],
                judgements: Mapping[str, Judgement]) -> dict[str, Any]:
    """The int8 section of export_report.json."""
    return {"calibration": {"source": options.calibration.name, "frames": len(recording.run.frames),
                            "calls": {role: len(feeds) for role, feeds in recording.feeds.items()}},
            "limits": vars(options.limits), "other_operators": f"in float: {OTHERS}",
            "backends": {backend: {"layers": [layer.to_dict() for layer in made.layers],
                                   "operators": dict(made.operators), "against_f32": judgements[backend].to_dict()}
                         for backend, made in backends.items()}}
