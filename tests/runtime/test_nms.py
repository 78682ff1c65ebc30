from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stmask_deploy.runtime.nms import Detections, cross_class_fast_nms, per_class_fast_nms
from stmask_deploy.types import Array, Candidates

DATA = Path(__file__).resolve().parent.parent / "data"


def candidates(boxes: Array, class_scores: Array, centerness: Array) -> Candidates:
    n = len(boxes)
    return Candidates(boxes, class_scores, centerness, np.zeros((n, 2), np.float32), np.zeros((n, 2), np.float32))


def exact_iou(a: Array, b: Array) -> Fraction:
    ax, ay, aX, aY = (Fraction(float(v)) for v in a)
    bx, by, bX, bY = (Fraction(float(v)) for v in b)
    inter = max(min(aX, bX) - max(ax, bx), Fraction(0)) * max(min(aY, bY) - max(ay, by), Fraction(0))
    union = (aX - ax) * (aY - ay) + (bX - bx) * (bY - by) - inter
    return inter / union if union else Fraction(0)


def slow_fast_nms(rows: list[int], scores: Array, boxes: Array, top_k: int) -> list[int]:
    """Fast NMS by its definition, one pair at a time."""
    ranked = sorted(rows, key=lambda row: -scores[row])[:top_k]  # sorted() is stable
    return [row for rank, row in enumerate(ranked)
            if not any(exact_iou(boxes[better], boxes[row]) > Fraction(1, 2) for better in ranked[:rank])]


@st.composite
def scenes(draw: st.DrawFn) -> Candidates:
    """A few boxes on a coarse grid, so that overlaps of exactly one half and equal scores are common."""
    n, num_classes = draw(st.integers(0, 9)), draw(st.integers(1, 3))
    corner, side = st.integers(0, 4), st.integers(0, 4)
    quads = draw(st.lists(st.tuples(corner, corner, side, side), min_size=n, max_size=n))
    boxes = np.array([(x, y, x + w, y + h) for x, y, w, h in quads], np.float32).reshape(n, 4) / 8
    level = st.integers(0, 8)
    scores = draw(st.lists(st.lists(level, min_size=num_classes, max_size=num_classes), min_size=n, max_size=n))
    centerness = draw(st.lists(st.integers(-2, 4), min_size=n, max_size=n))
    return candidates(boxes, np.array(scores, np.float32).reshape(n, num_classes) / 8,
                      np.array(centerness, np.float32) / 4)


@pytest.mark.parametrize("case", range(4))
@pytest.mark.parametrize("kind", ["cross", "perclass"])
def test_recorded(case: int, kind: str) -> None:
    data = np.load(DATA / "parts_nms.npz")
    rows = candidates(data[f"nms{case}_boxes"], data[f"nms{case}_probs"][:, 1:], data[f"nms{case}_centerness"])
    kept = (cross_class_fast_nms if kind == "cross" else per_class_fast_nms)(rows)
    np.testing.assert_array_equal(kept.rows, data[f"nms{case}_{kind}_rows"])
    np.testing.assert_array_equal(kept.class_ids, data[f"nms{case}_{kind}_classes"])
    np.testing.assert_allclose(kept.scores, data[f"nms{case}_{kind}_scores"], atol=1e-7)


@settings(max_examples=200)
@given(scenes(), st.integers(1, 9))
def test_cross_class_agrees_with_the_definition(scene: Candidates, top_k: int) -> None:
    scores = scene.class_scores.max(axis=1, initial=0) * scene.centerness
    expected = slow_fast_nms(list(range(len(scene))), scores, scene.boxes, top_k)
    kept = cross_class_fast_nms(scene, top_k=top_k)
    assert kept.rows.tolist() == expected
    np.testing.assert_array_equal(kept.scores, scores[expected])
    for row, class_id in zip(kept.rows, kept.class_ids, strict=True):
        assert class_id == 1 + scene.class_scores[row].tolist().index(scene.class_scores[row].max())


@settings(max_examples=200)
@given(scenes(), st.integers(1, 9), st.integers(0, 6))
def test_per_class_agrees_with_the_definition(scene: Candidates, top_k: int, max_detections: int) -> None:
    found = []
    for index in range(scene.class_scores.shape[1]):
        scores = scene.class_scores[:, index] * scene.centerness
        kept = slow_fast_nms(list(range(len(scene))), scores, scene.boxes, top_k)
        found += [(row, index + 1, float(scores[row])) for row in kept if scores[row] > np.float32(0.05)]
    expected = sorted(found, key=lambda entry: -entry[2])[:max_detections]
    kept_rows = per_class_fast_nms(scene, top_k=top_k, max_detections=max_detections)
    assert list(zip(kept_rows.rows.tolist(), kept_rows.class_ids.tolist(), kept_rows.scores.tolist(),
                    strict=True)) == expected


@pytest.mark.parametrize("suppress", [cross_class_fast_nms, per_class_fast_nms])
def test_no_candidates(suppress: object) -> None:
    none = candidates(np.zeros((0, 4), np.float32), np.zeros((0, 3), np.float32), np.zeros(0, np.float32))
    kept: Detections = suppress(none)  # type: ignore[operator]
    assert len(kept) == 0
    assert kept.rows.dtype == kept.class_ids.dtype == np.int64


def test_a_suppressed_row_suppresses_others() -> None:
    boxes = np.array([[0, 0, 6, 1], [1, 0, 7, 1], [3, 0, 9, 1]], np.float32)  # 0-1 and 1-2 overlap, 0-2 do not
    scores = np.array([[0.9], [0.8], [0.7]], np.float32)
    assert cross_class_fast_nms(candidates(boxes, scores, np.ones(3, np.float32))).rows.tolist() == [0, 2]
    boxes[2] = [2, 0, 8, 1]  # now 0-2 overlap by exactly one half: only 1, which itself goes, suppresses 2
    assert cross_class_fast_nms(candidates(boxes, scores, np.ones(3, np.float32))).rows.tolist() == [0]


def test_cross_class_keeps_negative_scores_and_per_class_does_not() -> None:
    boxes = np.array([[0, 0, 1, 1], [2, 2, 3, 3]], np.float32)
    rows = candidates(boxes, np.full((2, 1), 0.5, np.float32), np.array([-0.5, 0.5], np.float32))
    assert cross_class_fast_nms(rows).scores.tolist() == [0.25, -0.25]
    assert per_class_fast_nms(rows).rows.tolist() == [1]
    assert len(per_class_fast_nms(rows, score_threshold=0.25)) == 0  # above, not at
