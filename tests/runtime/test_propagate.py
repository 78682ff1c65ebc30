from __future__ import annotations

import numpy as np
from tracking import random_instances

from stmask_deploy.runtime.masks import assemble_masks
from stmask_deploy.runtime.propagate import move, propagate
from stmask_deploy.types import TrackedInstances


def some_tracks(n: int) -> TrackedInstances:
    rng = np.random.default_rng(0)
    rows = random_instances(rng, n)
    boxes = np.array([[0.2, 0.1, 0.6, 0.3], [0.0, 0.0, 1.0, 1.0], [0.5, 0.5, 0.6, 0.9]], np.float32)[:n]
    return TrackedInstances(rows.replace(boxes=boxes), np.arange(n) + 7, np.array([0, 3, 11][:n], np.int64))


def test_worked_example() -> None:
    tracks = some_tracks(3)
    before = {"boxes": tracks.instances.boxes.copy(), "coeffs": tracks.instances.mask_coeffs.copy()}
    rng = np.random.default_rng(1)
    box_deltas = np.zeros((3, 4), np.float32)
    box_deltas[0] = [2, -1, 5 * np.log(2), 0]  # a fifth of the width right, a tenth of the height up, twice as wide
    coeff_deltas = rng.normal(size=(3, 4)).astype(np.float32)
    prototypes = rng.normal(size=(8, 8, 4)).astype(np.float32)
    moved = propagate(tracks, move(tracks, box_deltas, coeff_deltas), prototypes, score_decay=0.5)
    np.testing.assert_allclose(moved.instances.boxes[0], [0.48 - 0.4, 0.08, 0.48 + 0.4, 0.28], atol=1e-6)
    np.testing.assert_allclose(moved.instances.boxes[1:], before["boxes"][1:], atol=1e-6)
    np.testing.assert_allclose(moved.instances.mask_coeffs, before["coeffs"] + coeff_deltas)
    np.testing.assert_array_equal(moved.instances.masks, assemble_masks(prototypes, moved.instances.mask_coeffs,
                                                                        moved.instances.boxes))
    np.testing.assert_allclose(moved.instances.scores, tracks.instances.scores * 0.5)
    assert moved.ages.tolist() == [1, 4, 12]
    assert moved.ids.tolist() == [7, 8, 9]
    for kept in ("embeddings", "class_ids", "centerness"):
        assert getattr(moved.instances, kept) is getattr(tracks.instances, kept)
    np.testing.assert_array_equal(tracks.instances.boxes, before["boxes"])  # the argument is as it was
    assert tracks.ages.tolist() == [0, 3, 11]


def test_default_decay_is_the_released_one() -> None:
    tracks = some_tracks(1)
    still = np.zeros((1, 4), np.float32)
    moved = propagate(tracks, move(tracks, still, still), np.zeros((8, 8, 4), np.float32))
    np.testing.assert_allclose(moved.instances.scores, tracks.instances.scores * 0.95)
    assert moved.instances.scores.dtype == np.float32


def test_no_tracks() -> None:
    nobody, deltas = some_tracks(3)[:0], np.zeros((0, 4), np.float32)
    assert len(propagate(nobody, move(nobody, deltas, deltas), np.zeros((8, 8, 4), np.float32))) == 0


def test_boxes_without_area_that_grow_beyond_all_measure_stay_numbers() -> None:
    tracks = some_tracks(2)
    boxes = np.array([[0.5, 0.2, 0.5, 0.8], [0.1, 0.1, 0.2, 0.2]], np.float32)
    deltas = np.array([[0, 0, 500, 500]] * 2, np.float32)
    with np.errstate(all="raise"):
        moved = move(tracks.replace(instances=tracks.instances.replace(boxes=boxes)), deltas, np.zeros_like(deltas))
    np.testing.assert_array_equal(moved.boxes, [[0.5, -1e4, 0.5, 1e4], [-1e4, -1e4, 1e4, 1e4]])


def test_boxes_that_grow_for_ever_stay_numbers() -> None:
    tracks = some_tracks(3)
    grow = np.array([[9, -9, 5, 5], [-9, 9, -5, 5], [0, 0, 1, 1]], np.float32)
    for _ in range(1000):
        tracks = propagate(tracks, move(tracks, grow, np.ones((3, 4), np.float32)), np.ones((8, 8, 4), np.float32))
    assert np.isfinite(tracks.instances.boxes).all()
    assert np.isfinite(tracks.instances.masks).all()
