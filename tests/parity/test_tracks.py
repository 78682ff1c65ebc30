"""The exported bundle against recorded tensors and tracks of the released implementation."""
from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from forward import graph_values
from recording import Recording, TrackAgreement, compare_tracks, errors, misses

import stmask_deploy
from stmask_deploy.runtime.loading import open_bundle
from stmask_deploy.runtime.result import FrameResult

BACKENDS = ("onnxruntime", "openvino")


@pytest.fixture(scope="module")
def results(exported: Path, generated: Recording) -> list[FrameResult]:
    return list(stmask_deploy.load(exported).track(generated.frames))


def all_of(recording: Recording) -> TrackAgreement:
    rows = sum(map(len, recording.info["tracks"]))
    return TrackAgreement(rows, rows, rows)


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_maps_and_temporal_outputs(exported: Path, generated: Recording, backend: str) -> None:
    shares = errors(generated, graph_values(open_bundle(exported, backend, device="cpu"), generated))
    assert {"proto", "fpn_p4", "t2s_p4", "temporal_loc", "temporal_coeff", "temporal_shifted_boxes"} == set(shares)
    assert not misses(shares)


@pytest.mark.slow
def test_tracks_on_onnxruntime(results: list[FrameResult], generated: Recording) -> None:
    assert compare_tracks(generated, results) == all_of(generated)


@pytest.mark.slow
def test_tracks_on_openvino(exported: Path, generated: Recording) -> None:
    found = stmask_deploy.load(exported, "openvino", device="cpu").track(generated.frames)
    assert compare_tracks(generated, found) == all_of(generated)


@pytest.mark.slow
@pytest.mark.parametrize("column, change", [
    ("scores", 1e-4), ("boxes_px", 0.1), ("class_ids", 1), ("soft_masks", 0.2),
])
def test_the_comparison_is_strict(results: list[FrameResult], generated: Recording, column: str, change: float) -> None:
    # A comparison that forgives any of these would also pass a tracker that is a little wrong.
    changed = [dataclasses.replace(result, **{column: getattr(result, column) + change}) for result in results]
    assert compare_tracks(generated, changed).reproduced < all_of(generated).reproduced / 2


@pytest.mark.slow
def test_the_comparison_wants_stable_ids(results: list[FrameResult], generated: Recording) -> None:
    offset = [dataclasses.replace(result, ids=result.ids + 1000 * result.index) for result in results]
    assert compare_tracks(generated, offset).reproduced < all_of(generated).reproduced
