"""Tiny networks for the tests of the exporter."""
from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from untrained import build_untrained

from stmask_deploy.bundle import DESCRIPTION_FILE, read_description
from stmask_deploy.config import Calibration, ModelConfig, TemporalConfig
from stmask_deploy.models.checkpoint import CONFIG_KEY
from stmask_deploy.synthetic.clips import render

TINY = ModelConfig(
    class_names=("ant", "bee", "cat"), stem_width=8, depths=(1, 1, 2, 1), widths=(8, 8, 8, 8), expansion=2,
    deformable_blocks=((1, 0), (2, 1)), fpn_width=8, proto_width=8, num_prototypes=6, head_width=8, tower_depth=1,
    embedding_dim=5, class_calibration=Calibration.ADAPTIVE, mask_calibration=Calibration.ALIGNED,
    temporal=TemporalConfig(patch_size=3, roi_size=5, widths=(8, 8, 16)), input_size=(72, 100))


def write_checkpoint(path: Path, config: ModelConfig, seed: int = 0) -> Path:
    frames = list(render("val", 1, 2, config.input_size).pictures())
    model = build_untrained(config, frames, candidate_share=0.1, seed=seed)
    torch.save({"state_dict": model.state_dict(), CONFIG_KEY: config.to_dict()}, path)
    return path


def changed_copy(bundle: Path, folder: Path, role: str, amount: float, weight: str) -> Path:
    """A bundle without IR, one of whose ONNX weights is off by `amount` of its largest value."""
    shutil.copytree(bundle, folder, ignore=shutil.ignore_patterns("openvino"))
    description = replace(read_description(folder), openvino_weights=None)
    (folder / DESCRIPTION_FILE).write_text(description.to_json(), encoding="utf-8")
    path = folder / f"{role}.onnx"
    model = onnx.load(path)
    tensor = next(one for one in model.graph.initializer if weight in one.name)
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] += amount * max(float(np.abs(values).max()), 1.0)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, path)
    return folder


def edited_copy(bundle: Path, folder: Path, name: str, edit: Callable[[onnx.GraphProto], None]) -> Path:
    """A bundle without IR, whose graph `name` is edited."""
    shutil.copytree(bundle, folder, ignore=shutil.ignore_patterns("openvino"))
    description = replace(read_description(folder), openvino_weights=None)
    (folder / DESCRIPTION_FILE).write_text(description.to_json(), encoding="utf-8")
    model = onnx.load(folder / name)
    edit(model.graph)
    onnx.save(model, folder / name)
    return folder
