"""The whole path against the larger recordings: four variants on a real clip, every tensor and every track.

They are not part of the repository. STMASK_FULL_PARITY=1 runs them where they are at hand, in a quarter of an hour.
"""
from __future__ import annotations

import os
from pathlib import Path

import pytest
from forward import graph_values, torch_values
from recording import Recording, TrackAgreement, compare_tracks, errors, misses, read_recording
from synthetic import write_checkpoint

import stmask_deploy
from stmask_deploy.export.exporter import ExportOptions, export_checkpoint
from stmask_deploy.models.checkpoint import Checkpoint, load_checkpoint
from stmask_deploy.runtime.loading import open_bundle

pytestmark = [
    pytest.mark.slow, pytest.mark.reference, pytest.mark.timeout(1800),
    pytest.mark.skipif(os.environ.get("STMASK_FULL_PARITY") != "1", reason="set STMASK_FULL_PARITY=1 to run it"),
]
BACKENDS = ("onnxruntime", "openvino")
ALL_ANCHORS = 15_345


@pytest.fixture(scope="module", params=["r50_ada", "r50_ali", "r50_perclass", "r50_notemporal"])
def recording(request: pytest.FixtureRequest, reference_dir: Path) -> Recording:
    return read_recording(reference_dir, request.param, frames=reference_dir / "clip")


@pytest.fixture(scope="module")
def checkpoint(recording: Recording, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    path = tmp_path_factory.mktemp("checkpoint") / f"{recording.info['config']}.pth"
    write_checkpoint(path, recording.config, recording.info["background_bias"])
    loaded = load_checkpoint(path)
    path.unlink()
    return loaded


@pytest.fixture(scope="module")
def bundle(checkpoint: Checkpoint, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every anchor leaves the frame graph, so that all recorded ones can be compared."""
    folder = tmp_path_factory.mktemp("reference") / "bundle"
    export_checkpoint(checkpoint, folder, ExportOptions(max_candidates=ALL_ANCHORS, candidate_threshold=0.0,
                                                        openvino_weights="f32"))
    return folder


def test_pytorch(checkpoint: Checkpoint, recording: Recording) -> None:
    assert checkpoint.config == recording.config
    shares = errors(recording, torch_values(checkpoint.build(), recording))
    assert set(shares) == set(recording.values) - {"anchor_index", "temporal_boxes"}
    assert not misses(shares)


@pytest.mark.parametrize("backend", BACKENDS)
def test_graphs(bundle: Path, recording: Recording, backend: str) -> None:
    shares = errors(recording, graph_values(open_bundle(bundle, backend, device="cpu"), recording))
    inside = {"anchor_index", "temporal_boxes", "temporal_roi_features", "priors", "loc"}  # of the graphs, not outputs
    assert set(shares) == set(recording.values) - inside
    assert not misses(shares)


@pytest.mark.parametrize("backend", BACKENDS)
def test_tracks(bundle: Path, recording: Recording, backend: str) -> None:
    model = stmask_deploy.load(bundle, backend, device="cpu", **recording.run_options)
    found = compare_tracks(recording, model.track(recording.frames, max_frames=recording.info["frames"]))
    rows = sum(map(len, recording.info["tracks"]))
    assert found == TrackAgreement(rows, rows, rows)
