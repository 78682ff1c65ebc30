"""Tiny networks, exported once for all tests here."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tiny_networks import TINY, write_checkpoint

from stmask_deploy.export.exporter import ExportOptions, export_checkpoint
from stmask_deploy.export.lowering import Dcn
from stmask_deploy.models.checkpoint import Checkpoint, load_checkpoint
from stmask_deploy.tracking_config import TrackingConfig


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny.pth", TINY)


@pytest.fixture(scope="session")
def tiny(tiny_checkpoint: Path) -> Checkpoint:
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture(scope="session")
def native_bundle(tiny: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Native deformable convolution, with IR."""
    folder = tmp_path_factory.mktemp("native") / "bundle"
    export_checkpoint(tiny, folder, ExportOptions(openvino_weights="f32", max_candidates=60))
    return folder


@pytest.fixture(scope="session")
def gridsample_bundle(tiny: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Deformable convolution as standard operators, opset 21, with IR of half-precision weights and graphs of f16, and
    another tracker than the default."""
    folder = tmp_path_factory.mktemp("gridsample") / "bundle"
    tuned = replace(tiny, config=replace(tiny.config, tracking=TrackingConfig("paper", alpha=4.0, epsilon=1.6)))
    export_checkpoint(tuned, folder, ExportOptions(dcn=Dcn.GRIDSAMPLE, opset=21, openvino_weights="f16", half=True,
                                                  max_candidates=60))
    return folder
