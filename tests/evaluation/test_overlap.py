"""Overlap against sums over pixels."""
from __future__ import annotations

import numpy as np
import pytest
from tiny_dataset import SIZE, Rectangle, masks

from stmask_deploy.evaluation.overlap import Overlap

PIXEL: Rectangle = (3, 4, 1, 1)
FOUND: list[list[Rectangle | None]] = [[(0, 0, 10, 10), (2, 2, 5, 5), None], [None, PIXEL, (1, 1, 6, 6)], [None] * 3]
TRUTH: list[list[Rectangle | None]] = [[(0, 5, 10, 10), None, (1, 1, 3, 6)], [PIXEL, PIXEL, None]]


def pixels(tracks: list[list[Rectangle | None]]) -> np.ndarray:
    """(tracks, frames, H, W) bool."""
    found = np.zeros((len(tracks), 3, *SIZE), bool)
    for track, rectangles in enumerate(tracks):
        for frame, rectangle in enumerate(rectangles):
            if rectangle is not None:
                y, x, height, width = rectangle
                found[track, frame, y:y + height, x:x + width] = True
    return found


@pytest.fixture
def overlap() -> Overlap:
    return Overlap.measure([masks(one) for one in FOUND], [masks(one) for one in TRUTH], 3)


def test_areas(overlap: Overlap) -> None:
    np.testing.assert_array_equal(overlap.areas, pixels(FOUND).sum((2, 3)).T)
    np.testing.assert_array_equal(overlap.truth_areas, pixels(TRUTH).sum((2, 3)).T)
    assert overlap.mean_areas.tolist() == [62.5, 18.5, 0]  # over two frames, two frames, none
    assert overlap.mean_truth_areas.tolist() == [59, 1]


def test_iou_of_whole_tracks(overlap: Overlap) -> None:
    found, truth = pixels(FOUND)[:, None], pixels(TRUTH)[None]
    inside, union = (found & truth).sum((2, 3, 4)), (found | truth).sum((2, 3, 4))
    np.testing.assert_allclose(overlap.track_iou(), inside / union)
    assert inside.tolist() == [[50, 2], [18, 1], [0, 0]]


def test_iou_of_frames_lists_what_is_visible(overlap: Overlap) -> None:
    listed = list(overlap.frame_ious())
    assert [(rows.tolist(), tracks.tolist()) for rows, tracks, _ in listed] == [
        ([0], [0, 1]), ([0, 1], [1]), ([1], [0])]
    for frame, (rows, tracks, ious) in enumerate(listed):
        found, truth = pixels(FOUND)[rows, None, frame], pixels(TRUTH)[None, tracks, frame]
        np.testing.assert_allclose(ious, (found & truth).sum((2, 3)) / (found | truth).sum((2, 3)))


def test_a_selection_is_that_of_these_objects_alone(overlap: Overlap) -> None:
    part = overlap.select(np.array([1, 2]), np.array([1]))
    alone = Overlap.measure([masks(FOUND[1]), masks(FOUND[2])], [masks(TRUTH[1])], 3)
    np.testing.assert_array_equal(part.areas, alone.areas)
    np.testing.assert_array_equal(part.truth_areas, alone.truth_areas)
    np.testing.assert_array_equal(part.track_iou(), alone.track_iou())
    for one, other in zip(part.frame_ious(), alone.frame_ious(), strict=True):
        for left, right in zip(one, other, strict=True):
            np.testing.assert_array_equal(left, right)
