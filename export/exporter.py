"""Export of a checkpoint to a verified bundle."""
from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import torch

import stmask_deploy
from stmask_deploy.bundle import (
    CANDIDATE_THRESHOLD,
    DESCRIPTION_FILE,
    MAX_CANDIDATES,
    METADATA_KEY,
    REPORT_FILE,
    BundleDescription,
    has_own_graph,
)
from stmask_deploy.environment import installed_versions
from stmask_deploy.errors import InputError, StmaskError
from stmask_deploy.models.checkpoint import Checkpoint
from stmask_deploy.models.stmask import STMask

from .bundle_folder import building, check_target
from .folding import fold_deformable
from .frame_graph import FrameGraph
from .half import to_half
from .instance_graph import InstanceGraph, instance_inputs
from .int8 import PRECISION, Int8Options, add_int8, check_int8
from .joined_head import join_boxes
from .lowering import Dcn
from .onnx_model import OPSETS, export_module, require_onnxruntime
from .openvino_ir import require_openvino, save_ir, to_openvino
from .prototype_graph import PrototypeGraph, prototype_inputs
from .temporal_graph import CHANNEL_MULTIPLE, TemporalGraph, example_inputs
from .verification import Verification
from .verify import verify_bundle
from .verify_levels import ROW_OUTPUTS

Say = Callable[[str], None]
# What takes part in an export.
PACKAGES = ("torch", "onnx", "onnxscript", "onnxsim", "onnxruntime", "onnxruntime-gpu", "openvino", "nncf", "numpy")


@dataclass(frozen=True)
class ExportOptions:
    """Options of an export."""

    dcn: Dcn = Dcn.NATIVE
    opset: int = 20
    max_candidates: int = MAX_CANDIDATES  # K; more than the 200 rows that enter NMS, so cross-class NMS misses none
    candidate_threshold: float = CANDIDATE_THRESHOLD
    simplify: bool = True
    openvino_weights: str | None = None  # f32 | f16; None writes no IR
    half: bool = False  # also write f16 graphs
    int8: Int8Options | None = None  # None writes no int8 graphs
    tolerance: float | None = None  # largest error as a share of an output's range; None: `verify.TOLERANCES`

    def __post_init__(self) -> None:
        if self.opset not in OPSETS:
            raise InputError(f"opset {self.opset} is not supported; choose one of {', '.join(map(str, OPSETS))}")


def export_checkpoint(checkpoint: Checkpoint, folder: Path, options: ExportOptions, *, overwrite: bool = False,
                      say: Say = lambda _line: None) -> Verification:
    """Write the bundle of `checkpoint` to `folder`: complete and verified, or not at all.

    Args:
        checkpoint: returned by `load_checkpoint`.
        folder: the bundle's folder; created if missing.
        options: how to write it.
        overwrite: replace an existing bundle in `folder`.
        say: called with lines of text that report the progress.

    Raises:
        InputError, OutputError: see `check_export`; the folder is checked again before the bundle is moved into it.
        InputError: the network returns NaN or infinite values, or int8 cannot be calibrated or judged on its clip.
        OutputError: the folder cannot be written.
        StmaskError: the graphs' outputs differ from PyTorch's, or int8 differs too much from f32; the message lists
            all failures.
    """
    started = time.perf_counter()
    description = check_export(checkpoint, folder, options, overwrite=overwrite)
    model = checkpoint.build()
    with building(folder, overwrite) as build:
        graphs = {role: export_graph(model, description, role, options) for role in description.roles}
        say(f"traced {', '.join(graphs)} graph, opset {options.opset}, deformable convolution {options.dcn.value}")
        irs = {role: to_openvino(graph) for role, graph in graphs.items()} if options.openvino_weights else {}
        halves = {role: to_half(graph) for role, graph in graphs.items()
                  if options.half and has_own_graph(role, "onnxruntime", "f16")}
        extra = {(role, "f16"): graph for role, (graph, _) in halves.items()}
        _write(build, description, graphs, irs, extra)
        verification = verify_bundle(build, model, options.tolerance)
        for line in verification.lines():
            say(line)
        if not verification.passed:
            raise StmaskError(f"the exported graphs do not match PyTorch: {verification.summary()}; "
                              "nothing was written")
        description = replace(description, tolerances=verification.reached(), precisions=(
            *description.precisions, *((PRECISION,) if options.int8 is not None else ())))
        _write(build, description, graphs, irs, extra)
        int8 = None if options.int8 is None else add_int8(
            build, description, options.int8, graphs, irs, partial(metadata, description), say)
        report = {"bundle": description.to_dict(), "notes": list(checkpoint.notes),
                  "operators": count_operators(graphs), "megabytes": _sizes(build),
                  "seconds": round(time.perf_counter() - started, 1), "versions": installed_versions(PACKAGES),
                  "verification": verification.to_dict(),
                  "f16": {role: half.to_dict() for role, (_, half) in halves.items()},
                  "int8": int8}
        (build / REPORT_FILE).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return verification


def check_export(checkpoint: Checkpoint, folder: Path, options: ExportOptions, *, overwrite: bool = False
                 ) -> BundleDescription:
    """Check what can be checked before tracing; see `export_checkpoint`.

    Returns:
        The description of the bundle, as far as it is known yet.

    Raises:
        InputError: the folder holds something other than a bundle, onnxruntime (for IR also openvino, for int8 IR also
            nncf) is not installed, an option is out of range, or the calibration clip or its annotations are unusable.
        OutputError: the folder holds a bundle and `overwrite` is False, or is not writable.
    """
    require_onnxruntime()
    if options.openvino_weights is not None:
        require_openvino()
    check_target(folder, overwrite)
    config = checkpoint.config
    description = BundleDescription(
        export_id=uuid.uuid4().hex, model=config, checkpoint_name=checkpoint.name,
        checkpoint_sha256=checkpoint.sha256, max_candidates=min(options.max_candidates, config.num_anchors),
        candidate_threshold=options.candidate_threshold, opset=options.opset, dcn=options.dcn.value,
        tool_version=stmask_deploy.__version__, openvino_weights=options.openvino_weights,
        precisions=("f16",) if options.half else ())
    if options.int8 is not None:
        check_int8(options.int8, description)
    return description


def export_graph(model: STMask, description: BundleDescription, role: str, options: ExportOptions) -> onnx.ModelProto:
    """The ONNX model of one role (see `bundle.ROLES`), without metadata."""
    config = description.model
    inputs, outputs = description.tensor_names(role)
    settings: dict[str, Any] = {"opset": options.opset, "dcn": options.dcn, "simplify": options.simplify}
    with torch.no_grad():
        if role == "temporal":
            return export_module(TemporalGraph(model, CHANNEL_MULTIPLE).eval(), example_inputs(config), inputs,
                                 outputs, dynamic={"boxes": {0: "N"}}, **settings)
        if role == "prototypes":
            return export_module(PrototypeGraph(model).eval(), prototype_inputs(config), inputs, outputs,
                                 dynamic={"p3": {2: "H", 3: "W"}}, **settings)
        if role == "instances":
            return export_module(InstanceGraph(model, config).eval(), instance_inputs(config), inputs, outputs,
                                 dynamic={"anchor_index": {0: "N"}}, **settings)
        folded = join_boxes(fold_deformable(model))
        graph = FrameGraph(folded, config, description.max_candidates, description.candidate_threshold).eval()
        generator = torch.Generator().manual_seed(0)
        frame = torch.randint(0, 256, (1, *config.input_size, 3), dtype=torch.uint8, generator=generator)
        return export_module(graph, [frame], inputs, outputs, rows=("anchor_index", *ROW_OUTPUTS), **settings)


def metadata(description: BundleDescription, role: str) -> dict[str, str]:
    """Metadata of every graph: the whole description, and its main facts for tools that only list keys."""
    config = description.model
    return {
        METADATA_KEY: description.to_json(),
        "stmask.role": role,
        "stmask.export_id": description.export_id,
        "stmask.variant": config.variant,
        "task": "video instance segmentation",
        "names": json.dumps(dict(enumerate(config.class_names, start=1))),
        "imgsz": json.dumps(list(config.input_size)),
        "version": description.tool_version,
    }


def count_operators(graphs: Mapping[str, onnx.ModelProto]) -> dict[str, dict[str, int]]:
    """Number of nodes per operator in each graph, most frequent first."""
    counts: dict[str, dict[str, int]] = {}
    for role, graph in graphs.items():
        names = [f"{node.domain}::{node.op_type}" if node.domain else node.op_type for node in graph.graph.node]
        counts[role] = dict(Counter(names).most_common())
    return counts


def _write(folder: Path, description: BundleDescription, graphs: Mapping[str, onnx.ModelProto],
           irs: Mapping[str, Any], extra: Mapping[tuple[str, str], onnx.ModelProto]) -> None:
    """Write the description and all graphs; `extra` holds the graphs other than f32, by role and precision."""
    (folder / DESCRIPTION_FILE).write_text(description.to_json() + "\n", encoding="utf-8")
    for (role, precision), graph in {**{(role, "f32"): graph for role, graph in graphs.items()}, **extra}.items():
        onnx.helper.set_model_props(graph, metadata(description, role))
        onnx.save(graph, description.graph_path(folder, role, "onnxruntime", precision))
    for role, ir in irs.items():
        path = description.graph_path(folder, role, "openvino")
        path.parent.mkdir(exist_ok=True)
        save_ir(ir, path, description.openvino_weights == "f16", metadata(description, role),
                description.export_id)


def _sizes(folder: Path) -> dict[str, float]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): round(path.stat().st_size / 1e6, 2) for path in files}
