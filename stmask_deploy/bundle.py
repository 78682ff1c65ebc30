"""The description of an exported bundle: the content of `stmask.json`, the graphs' metadata and the IR's `rt_info`.

A bundle is a folder: `frame.onnx`, `prototypes.onnx`, `instances.onnx` (absent where the mask or track branch is
calibrated to the boxes), `temporal.onnx` (absent for models without temporal fusion), `stmask.json`,
`export_report.json` and, on request, the same graphs as `openvino/frame.xml|bin` and graphs of other precisions
beside the f32 ones (`frame_f16.onnx`).
"""
from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .config import MAX_NAME, ModelConfig
from .errors import InputError
from .plain_values import from_plain, is_number
from .wording import shown

SCHEMA = "stmask-bundle/3"
DESCRIPTION_FILE = "stmask.json"
MAX_CANDIDATES, CANDIDATE_THRESHOLD = 512, 0.05  # defaults of an export, see `BundleDescription`
REPORT_FILE = "export_report.json"
METADATA_KEY = "stmask"  # the description as JSON, in metadata_props and rt_info
OPENVINO_FOLDER = "openvino"
CORRELATION = "function"  # how it is lowered: a model-local function of standard operators, which IRs have inlined
ROLES = ("frame", "prototypes", "instances", "temporal")
# The precisions that have graph files of their own, by backend; all others run the f32 file.
OWN_GRAPHS: Mapping[str, tuple[str, ...]] = {"onnxruntime": ("f16", "int8"), "openvino": ("int8",)}
# The exceptions, by precision: these graphs run the f32 file all the same.
_FLOAT_GRAPHS: Mapping[str, tuple[str, ...]] = {"f16": ("prototypes",), "int8": ("instances",)}

# Names of the graphs' inputs and outputs, shared by exporter, verifier and runtime.
FRAME_INPUTS = ("frame",)
FRAME_OUTPUTS = ("boxes", "class_scores", "centerness", "mask_coeffs", "embeddings", "anchor_index", "num_candidates",
                 "prototypes", "p3", "shared", "fpn", "temporal")
PROTOTYPE_INPUTS, PROTOTYPE_OUTPUTS = ("p3",), ("prototypes",)  # of a window; the frame graph covers the whole frame
# Frame graph outputs that exist only if another graph reads them.
INSTANCE_MAPS, TEMPORAL_MAPS = ("shared",), ("fpn", "temporal")
INSTANCE_INPUTS = ("shared", "anchor_index")
INSTANCE_OUTPUTS = ("mask_coeffs", "embeddings")  # of selected rows; the frame graph computes them for all its rows
TEMPORAL_INPUTS = ("prev_fpn", "fpn", "prev_temporal", "temporal", "boxes")
TEMPORAL_OUTPUTS = ("box_deltas", "coeff_deltas")


@dataclass(frozen=True)
class BundleDescription:
    """Everything a runtime needs to know about a bundle."""

    export_id: str  # shared by all graphs of one export
    model: ModelConfig
    checkpoint_name: str
    checkpoint_sha256: str
    max_candidates: int  # K, rows output by the frame graph
    candidate_threshold: float  # foreground probability above which an anchor is a candidate
    opset: int
    dcn: str  # native | gridsample: how deformable convolution was lowered
    tool_version: str
    openvino_weights: str | None = None  # f32 | f16, None without IR
    precisions: tuple[str, ...] = ()  # of the graphs present beside the f32 ones, see `OWN_GRAPHS`
    tolerances: Mapping[str, float] = field(default_factory=dict)  # backend -> largest error, as a fraction of range

    def __post_init__(self) -> None:
        is_count = is_number(self.max_candidates, is_whole=True) and self.max_candidates >= 1
        if not (is_count and is_number(self.candidate_threshold) and 0 <= self.candidate_threshold < 1):
            raise InputError(f"max_candidates must be at least 1 and candidate_threshold in [0, 1), got "
                             f"{self.max_candidates} and {self.candidate_threshold}")
        if max(len(self.export_id), len(self.checkpoint_name)) > MAX_NAME:  # messages and results repeat them
            raise InputError(f"export_id and checkpoint_name must have at most {MAX_NAME} characters")

    @property
    def roles(self) -> tuple[str, ...]:
        """The graphs this bundle has."""
        absent = {"instances": not self.model.has_local_branches, "temporal": self.model.temporal is None}
        return tuple(role for role in ROLES if not absent.get(role))

    def tensor_names(self, role: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of the inputs and outputs of the graph of `role`, in order."""
        if role == "temporal":
            return TEMPORAL_INPUTS, TEMPORAL_OUTPUTS
        if role == "instances":
            return INSTANCE_INPUTS, INSTANCE_OUTPUTS
        if role == "prototypes":
            return PROTOTYPE_INPUTS, PROTOTYPE_OUTPUTS
        unread = ((() if self.model.has_local_branches else INSTANCE_MAPS)
                  + (() if self.model.temporal is not None else TEMPORAL_MAPS))
        return FRAME_INPUTS, tuple(name for name in FRAME_OUTPUTS if name not in unread)

    def graph_path(self, folder: Path, role: str, backend: str, precision: str = "f32") -> Path:
        """Path of the graph of `role` (one of `ROLES`) for `backend` (onnxruntime | openvino) at `precision`."""
        stem = f"{role}_{precision}" if has_own_graph(role, backend, precision) else role
        if backend == "openvino":
            return folder / OPENVINO_FOLDER / f"{stem}.xml"
        return folder / f"{stem}.onnx"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: the fields, and what is the same in all bundles or follows from them."""
        values = {entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)}
        return {"schema": SCHEMA, **values, "model": self.model.to_dict(), "variant": self.model.variant,
                "correlation": CORRELATION, "tolerances": dict(self.tolerances)}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1)

    @classmethod
    def from_json(cls, text: str, where: str) -> BundleDescription:
        """Read the output of `to_json`; `where` names the file in messages.

        Raises:
            InputError: the text is not a bundle description of a schema this version reads.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where} is not valid JSON ({error}); export the checkpoint again") from error
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            found = values.get("schema") if isinstance(values, dict) else type(values).__name__
            raise InputError(f"{where}: expected schema {SCHEMA!r}, found {shown(found)}; "
                             "export the checkpoint again with this version")
        names = {entry.name for entry in dataclasses.fields(cls)}
        try:
            model = ModelConfig.from_dict(values["model"])
            known = {key: value for key, value in values.items() if key in names}
            return from_plain(cls, {**known, "model": model}, "description")
        except (KeyError, InputError) as error:
            raise InputError(f"{where} is incomplete or damaged ({error}); export the checkpoint again") from error


def has_own_graph(role: str, backend: str, precision: str) -> bool:
    """Whether the graph of `role` has a file of its own for `backend` at `precision`, or runs the f32 file."""
    return precision in OWN_GRAPHS[backend] and role not in _FLOAT_GRAPHS.get(precision, ())


def weights_mark(export_id: str) -> bytes:
    """Trailer of an IR's .bin, after the data OpenVINO reads. It identifies the export, which weights alone cannot."""
    return f"stmask {export_id}".encode()


def read_description(folder: Path) -> BundleDescription:
    """The description of the bundle in `folder`.

    Raises:
        InputError: the folder is not a bundle.
    """
    path = folder / DESCRIPTION_FILE
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe, which would be waited for, or a device without end
        raise InputError(f"{folder} is not a bundle: {DESCRIPTION_FILE} is not a file")
    if not os.path.isdir(folder):
        raise InputError(f"bundle {folder} does not exist or is not a folder; make one with stmask-export")
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors add a mark in front
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{folder} is not a bundle: cannot read {DESCRIPTION_FILE} ({error})") from error
    return BundleDescription.from_json(text, str(path))
