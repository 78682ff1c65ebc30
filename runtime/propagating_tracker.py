"""What trackers have in common that match detections to propagated objects."""
from __future__ import annotations

import numpy as np

from stmask_deploy.types import Array, Instances, IntArray, TrackedInstances

from .masks import MASK_THRESHOLD
from .tracker import TrackStore, merge, origins, retire

MAX_AGE_SHOWN = 10  # frames for which an object is shown after its last detection
MIN_MASK_CELLS = 2  # minimum number of cells above 0.5, at prototype size, in a shown mask


class PropagatingTracker(TrackStore):
    """Keeps the known objects without their masks, which propagation computes anew in every frame.

    Args:
        max_age_shown: frames for which an object is shown after its last detection.
        score_threshold: objects with a higher score are shown; others, even with negative scores, are still tracked.
        retire_after: see `TrackStore`.
    """

    tanh_passes = 1

    def __init__(self, max_age_shown: int, score_threshold: float, retire_after: int | None) -> None:
        super().__init__(retire_after)
        self._max_age_shown = max_age_shown
        self._score_threshold = score_threshold

    def _finish(self, known: TrackedInstances, detections: Instances, assignment: IntArray) -> TrackedInstances:
        """Store the state after a frame, see `merge`, and return what is shown.

        That is every known object with an age of at most `max_age_shown`, a score above the threshold and at least
        `MIN_MASK_CELLS` mask cells.
        """
        rows = origins(len(known), assignment)
        # Masks are by far the largest column: only those that are shown are copied.
        merged = merge(_unmasked(known), detections.replace(masks=_no_masks(len(detections))), rows, self._next_id)
        is_kept = retire(merged, self._retire_after)
        is_shown = is_kept & (merged.ages <= self._max_age_shown) & (merged.instances.scores > self._score_threshold)
        masks = _picked(known.instances.masks, detections.masks, rows[is_shown])
        self._keep(merged.where(is_kept), assignment)
        shown = merged[is_shown]
        shown = shown.replace(instances=shown.instances.replace(masks=masks))
        # One by one: counting along axes takes four times as long.
        num_cells = np.array([np.count_nonzero(above) for above in masks > MASK_THRESHOLD], np.int64)
        return shown.where(num_cells >= MIN_MASK_CELLS)


def _no_masks(count: int) -> Array:
    return np.zeros((count, 0, 0), np.float32)


def _unmasked(tracks: TrackedInstances) -> TrackedInstances:
    return tracks.replace(instances=tracks.instances.replace(masks=_no_masks(len(tracks))))


def _picked(known: Array, detected: Array, rows: IntArray) -> Array:
    """`np.concatenate([known, detected])[rows]`, without a copy of the others."""
    masks = np.empty((len(rows), *detected.shape[1:]), np.float32)
    is_known = rows < len(known)
    masks[is_known] = known[rows[is_known]]
    masks[~is_known] = detected[rows[~is_known] - len(known)]
    return masks
