"""The tracker interface, and the steps that several trackers share. Pure NumPy: a tracker never runs a network."""
from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from stmask_deploy.types import Instances, IntArray, TrackedInstances

from .matching import NEW_OBJECT

SCORE_THRESHOLD = 0.05  # objects with a higher score are shown

DROPPED = -2  # in an assignment: a better detection took the object


class Tracker(Protocol):
    """Assigns persistent identities to detections. Ids count up from 0, per tracker; each video has its own tracker."""

    @property
    def tanh_passes(self) -> int:
        """How often tanh is applied to the mask coefficients of detections, see `assemble_masks`."""

    @property
    def tracks(self) -> TrackedInstances:
        """All known objects, as of the last frame; of trackers that use propagation without masks, (n, 0, 0)."""

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

    def _keep(self, tracks: TrackedInstances, assignment: IntArray) -> None:
        """Set the state after a frame whose detections were assigned so."""
        self._tracks = tracks
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


def origins(num_tracks: int, assignment: IntArray) -> IntArray:
    """Where the rows of `merge` come from: tracks whose detections replace them, then new objects in detection order.

    Args:
        num_tracks: m, the number of known objects.
        assignment: (n,) row of the object, NEW_OBJECT or DROPPED; each row occurs at most once.

    Returns:
        (m + number of new objects,) rows: m + i is detection i, others are known objects.
    """
    matched = np.flatnonzero(assignment >= 0)
    rows = np.concatenate([np.arange(num_tracks), num_tracks + np.flatnonzero(assignment == NEW_OBJECT)])
    rows[assignment[matched]] = num_tracks + matched
    return rows


def merge(tracks: TrackedInstances, detections: Instances, rows: IntArray, next_id: int) -> TrackedInstances:
    """Tracks after a frame: matched rows are replaced by their detections, new objects appended.

    Args:
        tracks: m rows, see `sized`.
        detections: n rows.
        rows: see `origins`.
        next_id: id of the first new object; the others count up from it.
    """
    ages = np.concatenate([tracks.ages, np.zeros(len(detections), np.int64)])
    ids = np.concatenate([tracks.ids, next_id + np.arange(len(rows) - len(tracks))])
    return TrackedInstances(Instances.concat([tracks.instances, detections])[rows], ids, ages[rows])


def retire(tracks: TrackedInstances, after: int | None) -> NDArray[np.bool_]:
    """(n,) whether to keep each object: not detected for at most `after` frames; None keeps all."""
    return np.ones(len(tracks), np.bool_) if after is None else tracks.ages <= after
