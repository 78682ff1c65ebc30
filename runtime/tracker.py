"""The tracker interface, and the steps that several trackers share. Pure NumPy: a tracker never runs a network."""
from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stmask_deploy.types import Instances, IntArray, TrackedInstances

from .masks import MASK_THRESHOLD
from .matching import NEW_OBJECT

MAX_AGE_SHOWN = 10  # frames for which an object is shown after its last detection
SCORE_THRESHOLD = 0.05  # objects with a higher score are shown
MIN_MASK_CELLS = 2  # minimum number of cells above 0.5, at prototype size, in a shown mask

DROPPED = -2  # in an assignment: a better detection took the object


class Tracker(Protocol):
    """Assigns persistent identities to detections. Ids count up from 0, per tracker; each video has its own tracker."""

    @property
    def uses_propagation(self) -> bool:
        """Whether `update` reads its second argument; False for the frame tracker."""

    @property
    def tanh_passes(self) -> int:
        """How often tanh is applied to the mask coefficients of detections, see `assemble_masks`."""

    @property
    def tracks(self) -> TrackedInstances:
        """All known objects, as of the last frame."""

    def update(self, detections: Instances, propagated: TrackedInstances) -> TrackedInstances:
        """Process one frame.

        Args:
            detections: detections of this frame, n rows (possibly 0), best score first.
            propagated: `tracks` propagated to this frame, the same rows in the same order.

        Returns:
            The instances to show in this frame.
        """


class TrackStore:
    """The state that every tracker keeps between frames: the known objects and the next id.

    Args:
        retire_after: None keeps every object ever seen; a number drops objects not detected for more than that many
            frames.
    """

    def __init__(self, retire_after: int | None) -> None:
        self._retire_after = retire_after
        self._tracks = no_tracks()
        self._next_id = 0

    @property
    def tracks(self) -> TrackedInstances:
        """All known objects, as of the last frame."""
        return self._tracks

    def _store(self, known: TrackedInstances, detections: Instances, assignment: IntArray) -> None:
        """Store the state after a frame, see `merge`, without the objects to be retired."""
        self._tracks = retire(merge(known, detections, assignment, self._next_id), self._retire_after)
        self._next_id += int(np.count_nonzero(assignment == NEW_OBJECT))


def no_tracks() -> TrackedInstances:
    """The state before the first frame: no rows, array sizes not known yet."""
    none = np.zeros(0, np.int64)
    return TrackedInstances(Instances.empty(0, 0, (0, 0)), none, none)


def sized(tracks: TrackedInstances, detections: Instances) -> TrackedInstances:
    """The same tracks; if there are none, with the array sizes of `detections`."""
    return tracks if len(tracks) else tracks.replace(instances=detections[:0])


def keep_best(assignment: IntArray, scores: NDArray[np.float32]) -> IntArray:
    """If several detections are assigned to one object, only the best keeps it (the first on ties).

    Args:
        assignment: (n,) row of the object assigned to each detection, or NEW_OBJECT.
        scores: (n,) scores of the detections.

    Returns:
        (n,) the assignment with DROPPED for the others.
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
    """Tracks after a frame: matched rows are replaced by their detections, new objects appended in detection order.

    Args:
        tracks: m rows, see `sized`.
        detections: n rows.
        assignment: (n,) row of `tracks`, NEW_OBJECT or DROPPED; each row occurs at most once.
        next_id: id of the first new object; the others count up from it.
    """
    matched = np.flatnonzero(assignment >= 0)
    new = np.flatnonzero(assignment == NEW_OBJECT)
    rows = assignment[matched]
    columns = {}
    for name in (field.name for field in dataclasses.fields(Instances)):
        detected = getattr(detections, name)
        column = np.concatenate([getattr(tracks.instances, name), detected[new]])
        column[rows] = detected[matched]
        columns[name] = column
    ages = np.concatenate([tracks.ages, np.zeros(len(new), np.int64)])
    ages[rows] = 0
    return TrackedInstances(Instances(**columns), np.concatenate([tracks.ids, next_id + np.arange(len(new))]), ages)


def shown(tracks: TrackedInstances, max_age: int, score_threshold: float) -> TrackedInstances:
    """The rows with an age of at most `max_age` frames, a score above the threshold and at least `MIN_MASK_CELLS`."""
    recent = tracks[(tracks.ages <= max_age) & (tracks.instances.scores > score_threshold)]
    cells = np.count_nonzero(recent.instances.masks > MASK_THRESHOLD, axis=(1, 2))
    return recent.where(cells >= MIN_MASK_CELLS)


def retire(tracks: TrackedInstances, after: int | None) -> TrackedInstances:
    """Tracks without the objects not detected for more than `after` frames; None keeps all."""
    return tracks if after is None else tracks.where(tracks.ages <= after)
