"""What a tracker is, and the steps that several trackers share. Pure NumPy: a tracker never runs a network."""
from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stmask_deploy.types import Instances, IntArray, TrackedInstances

from .masks import MASK_THRESHOLD
from .matching import NEW_OBJECT

MAX_AGE_SHOWN = 10  # frames an object is shown after it was last detected
SCORE_THRESHOLD = 0.05  # objects with a higher score are shown
MIN_MASK_CELLS = 2  # a shown mask has at least as many cells above 0.5, at prototype size

DROPPED = -2  # in an assignment: a better detection took the object


class Tracker(Protocol):
    """Gives detections identities that last. Ids count up from 0 and belong to one tracker: a video has its own."""

    @property
    def uses_propagation(self) -> bool:
        """Whether `update` reads its second argument: False for a tracker that knows single frames only."""

    @property
    def tanh_passes(self) -> int:
        """How often mask coefficients of detections pass through tanh, see `assemble_masks`."""

    @property
    def tracks(self) -> TrackedInstances:
        """Every object known, as of the last frame."""

    def update(self, detections: Instances, propagated: TrackedInstances) -> TrackedInstances:
        """Take in one frame.

        Args:
            detections: the frame's own, n rows (0 included), best score first.
            propagated: `tracks` moved to this frame, the same rows in the same order.

        Returns:
            What is to be shown in this frame.
        """


class TrackStore:
    """What every tracker keeps from frame to frame: the objects known, and the next id.

    Args:
        retire_after: None keeps every object ever seen; a number forgets objects not detected for more frames.
    """

    def __init__(self, retire_after: int | None) -> None:
        self._retire_after = retire_after
        self._tracks = no_tracks()
        self._next_id = 0

    @property
    def tracks(self) -> TrackedInstances:
        """Every object known, as of the last frame."""
        return self._tracks

    def _store(self, tracks: TrackedInstances, num_new: int) -> None:
        """Take over the state after a frame that brought `num_new` new objects; forget whom it is time to forget."""
        self._tracks = retire(tracks, self._retire_after)
        self._next_id += num_new


def no_tracks() -> TrackedInstances:
    """State before the first detection: no rows, sizes not known yet."""
    none = np.zeros(0, np.int64)
    return TrackedInstances(Instances.empty(0, 0, (0, 0)), none, none)


def keep_best(assignment: IntArray, scores: NDArray[np.float32]) -> IntArray:
    """Of several detections given to one object only the best keeps it (the first on equal scores).

    Args:
        assignment: (n,) object row of each detection, or NEW_OBJECT.
        scores: (n,) of the detections.

    Returns:
        (n,) the same with DROPPED for the others.
    """
    kept = assignment.copy()
    taken: set[int] = set()
    for detection in np.argsort(-scores, kind="stable").tolist():
        row = int(assignment[detection])
        if row in taken:
            kept[detection] = DROPPED
        elif row != NEW_OBJECT:
            taken.add(row)
    return kept


def merge(tracks: TrackedInstances, detections: Instances, assignment: IntArray, next_id: int) -> TrackedInstances:
    """Tracks after a frame: matched rows replaced by their detection, new objects appended in order of detection.

    Args:
        tracks: m rows.
        detections: n rows.
        assignment: (n,) row of `tracks`, NEW_OBJECT or DROPPED; a row at most once.
        next_id: id of the first new object, the others count up from it.
    """
    matched = np.flatnonzero(assignment >= 0)
    new = np.flatnonzero(assignment == NEW_OBJECT)
    rows = assignment[matched]
    known = tracks.instances if len(tracks) else detections[:0]  # before the first object the sizes are not known
    columns = {}
    for name in (field.name for field in dataclasses.fields(Instances)):
        detected = getattr(detections, name)
        column = np.concatenate([getattr(known, name), detected[new]])
        column[rows] = detected[matched]
        columns[name] = column
    ages = np.concatenate([tracks.ages, np.zeros(len(new), np.int64)])
    ages[rows] = 0
    return TrackedInstances(Instances(**columns), np.concatenate([tracks.ids, next_id + np.arange(len(new))]), ages)


def shown(tracks: TrackedInstances, max_age: int, score_threshold: float) -> TrackedInstances:
    """The rows not older than `max_age` frames, scored above the threshold, with more than one mask cell above 0.5."""
    recent = tracks[(tracks.ages <= max_age) & (tracks.instances.scores > score_threshold)]
    cells = np.count_nonzero(recent.instances.masks > MASK_THRESHOLD, axis=(1, 2))
    return recent.where(cells >= MIN_MASK_CELLS)


def retire(tracks: TrackedInstances, after: int | None) -> TrackedInstances:
    """Tracks without the objects that were not detected for more than `after` frames; None keeps all."""
    return tracks if after is None else tracks.where(tracks.ages <= after)
