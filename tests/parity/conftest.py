"""One checkpoint, one PyTorch run and one export for all comparisons with the recorded generated clip."""
from __future__ import annotations

from pathlib import Path

import pytest
from recording import Recording, read_recording
from synthetic import write_checkpoint

from stmask_deploy.export.exporter import ExportOptions, export_checkpoint
from stmask_deploy.models.checkpoint import Checkpoint, load_checkpoint

DATA = Path(__file__).parent.parent / "data" / "generated"


@pytest.fixture(scope="session")
def generated() -> Recording:
    """STMask R50-DCN FCA FCB(ada) TF on five generated frames."""
    return read_recording(DATA, "generated", frames=DATA)


@pytest.fixture(scope="session")
def checkpoint(generated: Recording, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = tmp_path_factory.mktemp("checkpoint") / f"{generated.info['config']}.pth"
    write_checkpoint(path, generated.config, generated.info["background_bias"])
    loaded = load_checkpoint(path)
    path.unlink()
    return loaded


@pytest.fixture(scope="session")
def exported(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its bundle with default options and OpenVINO IR."""
    folder = tmp_path_factory.mktemp("parity") / "bundle"
    export_checkpoint(checkpoint, folder, ExportOptions(openvino_weights="f32"))
    return folder
