"""Instances and recorded sequences for the tests of the trackers."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stmask_deploy.runtime.masks import assemble_masks
from stmask_deploy.runtime.propagate import move, propagate
from stmask_deploy.runtime.propagating_tracker import PropagatingTracker
from stmask_deploy.runtime.tracker import Tracker
from stmask_deploy.types import Array, Instances, TrackedInstances

DATA = Path(__file__).resolve().parent.parent / "data"
GRID = 8  # cells along each side of the masks made here


def instances(cells: list[tuple[int, int, int, int]], directions: list[int], scores: list[float] | None = None,
              class_ids: list[int] | None = None) -> Instances:
    """Rectangular objects on an 8x8 mask: (y1, x1, y2, x2) in cells, embedding = one of eight axes."""
    n = len(cells)
    boxes = np.array([(x1, y1, x2, y2) for y1, x1, y2, x2 in cells], np.float32).reshape(n, 4) / GRID
    return Instances(boxes, np.array(scores if scores is not None else [0.9] * n, np.float32),
                     np.array(class_ids if class_ids is not None else [1] * n, np.int64), np.ones(n, np.float32),
                     np.zeros((n, 4), np.float32), np.eye(8, dtype=np.float32)[directions].reshape(n, 8),
                     rectangles(boxes))


def rectangles(boxes: Array) -> Array:
    """(n, 8, 8) masks of 0.9 inside (n, 4) boxes."""
    masks = np.zeros((len(boxes), GRID, GRID), np.float32)
    for mask, (x1, y1, x2, y2) in zip(masks, (boxes * GRID).astype(int).tolist(), strict=True):
        mask[y1:y2, x1:x2] = 0.9
    return masks


def carried(tracks: TrackedInstances, decay: float = 0.95) -> TrackedInstances:
    """Tracks one frame later where nothing moved, with their masks."""
    rows = tracks.instances
    return tracks.replace(ages=tracks.ages + 1, instances=rows.replace(scores=rows.scores * np.float32(decay),
                                                                       masks=rectangles(rows.boxes)))


def step(tracker: Tracker, detections: Instances) -> TrackedInstances:
    """One frame of a still scene."""
    return tracker.update(detections, carried(tracker.tracks))


def random_instances(rng: np.random.Generator, n: int) -> Instances:
    """n random rectangles, best score first, some scores negative."""
    corners = np.sort(rng.integers(0, GRID + 1, (n, 2, 2)), axis=1)  # (n, [start, end], [y, x])
    cells = [(int(c[0, 0]), int(c[0, 1]), int(c[1, 0]), int(c[1, 1])) for c in corners]
    scores = np.sort(rng.uniform(-0.2, 1, n))[::-1]
    return instances(cells, rng.integers(0, 8, n).tolist(), scores.tolist(), rng.integers(1, 5, n).tolist())


@dataclass(frozen=True)
class Recorded:
    """What the released tracker shows in one frame."""

    ids: Array
    boxes: Array
    scores: Array
    classes: Array
    area: Array  # mask cells above 0.5


def replay(tracker: Tracker, name: str, mode: str) -> Iterator[tuple[TrackedInstances, Recorded]]:
    """Run a recorded sequence (a | b) through a tracker; yields what it shows and the released answer (mode)."""
    data = dict(np.load(DATA / f"parts_track_{name}.npz"))
    starts = np.concatenate([[0], np.cumsum(data["counts"])])
    ends = np.concatenate([[0], np.cumsum(data[f"{mode}_counts"])])
    for t, prototypes in enumerate(data["prototypes"].astype(np.float32)):
        now = slice(starts[t], starts[t + 1])
        coeffs, boxes = data["coeff"][now], data["box"][now]
        detections = Instances(boxes, data["score"][now], data["cls"][now], data["ctr"][now], coeffs,
                               data["track"][now],
                               assemble_masks(prototypes, coeffs, boxes, tanh_passes=tracker.tanh_passes))
        tracks = tracker.tracks
        if isinstance(tracker, PropagatingTracker) and len(tracks):
            rows = tracks.ids  # recorded by row of the state, where nothing is ever deleted
            moved = move(tracks, data["box_deltas"][t, rows], data["coeff_deltas"][t, rows])
            tracks = propagate(tracks, moved, prototypes)
        shown = tracker.update(detections, tracks)
        answer = slice(ends[t], ends[t + 1])
        yield shown, Recorded(*(data[f"{mode}_{key}"][answer] for key in ("ids", "boxes", "scores", "classes", "area")))


def assert_recorded(shown: TrackedInstances, recorded: Recorded) -> None:
    """The same rows in the same order."""
    np.testing.assert_array_equal(shown.ids, recorded.ids)
    np.testing.assert_array_equal(shown.instances.class_ids, recorded.classes)
    np.testing.assert_array_equal((shown.instances.masks > 0.5).sum(axis=(1, 2)), recorded.area)
    np.testing.assert_allclose(shown.instances.scores, recorded.scores, atol=1e-6)
    np.testing.assert_allclose(shown.instances.boxes, recorded.boxes, atol=1e-6)
