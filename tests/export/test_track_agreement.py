from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from stmask_deploy.bundle import read_description
from stmask_deploy.export.track_agreement import TrackComparison, compare_tracks
from stmask_deploy.geometry import FrameGeometry
from stmask_deploy.models.checkpoint import Checkpoint
from stmask_deploy.runtime.result import FrameResult
from stmask_deploy.synthetic.clips import render

GEOMETRY = FrameGeometry((32, 32), (32, 32), (32, 32))


def result(frame: int, ids: list[int], shift: float = 0.0, score: float = 0.5, class_id: int = 1) -> FrameResult:
    """Objects at places that tell them apart: the k-th at row 8k."""
    boxes = np.array([[2, 8 * k, 10, 8 * k + 6] for k in range(len(ids))], np.float32).reshape(-1, 4)
    boxes += np.float32(shift)
    masks = np.zeros((len(ids), 8, 8), np.float32)
    for k in range(len(ids)):
        masks[k, 2 * k:2 * k + 1, 1:3] = 1
    count = len(ids)
    return FrameResult(frame, 0.0, GEOMETRY, ("a", "b"), np.array(ids, np.int64), np.full(count, class_id, np.int64),
                       np.full(count, score, np.float32), boxes, np.zeros(count, np.int64), masks)


def compare(reference: list[FrameResult], found: list[FrameResult]) -> tuple[float, float]:
    comparison = TrackComparison()
    for a, b in zip(reference, found, strict=True):
        comparison.add(a, b)
    agreement = comparison.result()
    return agreement.recall, agreement.precision


def test_renamed_identities_agree() -> None:
    assert compare([result(0, [0, 1]), result(1, [0, 1])], [result(0, [7, 3]), result(1, [7, 3])]) == (1, 1)


def test_an_identity_switch_does_not() -> None:
    recall, precision = compare([result(0, [0]), result(1, [0]), result(2, [0])],
                                [result(0, [5]), result(1, [5]), result(2, [6])])
    assert (recall, precision) == (pytest.approx(2 / 3), pytest.approx(2 / 3))


def test_two_identities_have_no_common_counterpart() -> None:
    assert compare([result(0, [0]), result(1, [1])], [result(0, [5]), result(1, [5])]) == (0.5, 0.5)


def test_swapped_identities_count_in_the_frames_after_the_swap() -> None:
    recall, _ = compare([result(t, [0, 1]) for t in range(4)],
                        [result(t, [0, 1] if t < 3 else [1, 0]) for t in range(4)])
    assert recall == pytest.approx(6 / 8)


@pytest.mark.parametrize("change", [{"shift": 0.6}, {"score": 0.502}, {"class_id": 2}])
def test_rows_that_differ_do_not_agree(change: dict[str, float]) -> None:
    assert compare([result(0, [0])], [result(0, [0], **change)]) == (0, 0)  # type: ignore[arg-type]


def test_runs_of_every_backend(native_bundle: Path, tiny: Checkpoint, tmp_path: Path) -> None:
    for index, frame in enumerate(render("val", 2, 3, (120, 160)).pictures()):
        cv2.imwrite(str(tmp_path / f"{index}.png"), frame)
    agreements, damage = compare_tracks(native_bundle, read_description(native_bundle), tiny.build(), tmp_path, 2)
    assert set(agreements) == {"onnxruntime", "openvino"} and not damage.is_damaged
    for agreement in agreements.values():
        assert agreement.frames == 2 and agreement.matched == agreement.reference_rows == agreement.found_rows > 0


def test_missing_and_extra_rows() -> None:
    assert compare([result(0, [0, 1])], [result(0, [0])]) == (0.5, 1)
    assert compare([result(0, [0])], [result(0, [0, 1])]) == (1, 0.5)
    assert compare([result(0, [])], [result(0, [])]) == (1, 1)
