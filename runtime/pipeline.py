"""The per-frame pipeline: one picture in, tracked masks out."""
from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from stmask_deploy.types import Array, FrameFeatures, Instances, TrackedInstances

from .backends import check_finite
from .detector import DetectedFrame, Detector
from .frame_tracker import FrameTracker
from .loading import Bundle
from .masks import assemble_masks
from .paper_tracker import PaperTracker
from .propagate import Moved, move, propagate
from .prototypes import prototypes_within
from .released_tracker import ReleasedTracker
from .resolved_options import ResolvedOptions
from .result import FrameResult
from .timing import FrameTimes
from .tracker import Tracker


class Pipeline:
    """One video in progress. Holds the state between frames: the previous features and the tracker.

    `step` is `detect` followed by `track`, but runs no graph whose outputs nobody reads. `detect` is stateless and may
    run in other threads, several frames ahead. `track` must be called with one frame at a time, in order.

    Args:
        bundle: opened graphs.
        options: resolved for this bundle.

    Attributes:
        lost_candidates: see `Detector`; total over all frames tracked so far.
    """

    def __init__(self, bundle: Bundle, options: ResolvedOptions) -> None:
        self._detector = Detector(bundle, options)
        self._windows = bundle.prototypes
        self._temporal = bundle.temporal if options.propagates else None
        self._class_names = bundle.description.model.class_names
        self._score_decay = 1.0 if options.score_decay is None else options.score_decay  # None: nothing is propagated
        self._tracker = make_tracker(options)
        self._previous: FrameFeatures | None = None
        self._position = 0  # of the next frame
        self.lost_candidates = 0

    def step(self, image: NDArray[np.uint8], index: int, time_s: float, times: FrameTimes) -> FrameResult:
        """Process the next frame, (H, W, 3) uint8 BGR of any size; `index` and `time_s` are copied to the result.

        Every stage adds its time to `times`, here and in `detect`; `track` adds to those of the detected frame. Between
        key frames no graph runs as long as there is no object to move.
        """
        if self._detector.is_key(self._position) or len(self._tracker.tracks):
            detected = self.detect(image, self._position, times)
        else:
            detected = self._detector.skip(image, times)
        return self.track(detected, index, time_s)

    def detect(self, image: NDArray[np.uint8], position: int, times: FrameTimes) -> DetectedFrame:
        """See `Detector.detect`; also assembles the masks if the frame graph computed the prototypes."""
        detected = self._detector.detect(image, position, times)
        prototypes = detected.features.prototypes
        if prototypes is None:
            return detected
        with times.stage("masks"):
            return replace(detected, masks=self._masks(detected, prototypes))

    def track(self, detected: DetectedFrame, index: int, time_s: float) -> FrameResult:
        """Track the next frame, given its detections; `index` and `time_s` are copied to the result."""
        moved = self._move(detected)
        prototypes = self._prototypes(detected, moved)
        with detected.times.stage("masks"):
            detections = self._assemble(detected, prototypes)
            propagated = self._propagate(detected, moved, prototypes)
        with detected.times.stage("tracker"):
            tracked = self._tracker.update(detections, propagated)
        self._previous = detected.features
        self._position += 1
        self.lost_candidates += detected.lost_candidates
        return FrameResult.from_tracked(index, time_s, tracked, detected.geometry, self._class_names)

    def _prototypes(self, detected: DetectedFrame, moved: Moved | None) -> Array:
        """The frame's prototypes, at least inside the boxes of its detections and of the moved objects."""
        features, boxes = detected.features, detected.rows.boxes
        if features.prototypes is not None:
            return features.prototypes
        assert self._windows is not None and features.p3 is not None
        with detected.times.stage("prototype_graph"):
            return prototypes_within(boxes if moved is None else np.concatenate([boxes, moved.boxes]), features.p3,
                                     self._windows)

    def _assemble(self, detected: DetectedFrame, prototypes: Array) -> Instances:
        rows = detected.rows
        masks = self._masks(detected, prototypes) if detected.masks is None else detected.masks
        return Instances(rows.boxes, detected.scores, detected.class_ids, rows.centerness, rows.mask_coeffs,
                         rows.embeddings, masks)

    def _masks(self, detected: DetectedFrame, prototypes: Array) -> Array:
        rows = detected.rows
        return assemble_masks(prototypes, rows.mask_coeffs, rows.boxes, tanh_passes=self._tracker.tanh_passes)

    def _move(self, detected: DetectedFrame) -> Moved | None:
        """Move all known objects to this frame, whether or not it is a key frame; None if nothing is propagated."""
        tracks = self._tracker.tracks
        features, previous = detected.features, self._previous
        if self._temporal is None or previous is None or not len(tracks):
            return None
        with detected.times.stage("temporal_graph"):
            deltas = self._temporal.run({"prev_fpn": previous.fpn, "fpn": features.fpn,
                                         "prev_temporal": previous.temporal, "temporal": features.temporal,
                                         "boxes": tracks.instances.boxes})
        check_finite("temporal", *deltas.values())
        return move(tracks, deltas["box_deltas"], deltas["coeff_deltas"])

    def _propagate(self, detected: DetectedFrame, moved: Moved | None, prototypes: Array) -> TrackedInstances:
        """All known objects, propagated to this frame."""
        tracks = self._tracker.tracks
        if moved is None:
            return tracks
        # Between key frames the detector does not run, so a missing detection is no reason to lower the score.
        return propagate(tracks, moved, prototypes, self._score_decay if detected.is_key else 1.0)


def make_tracker(options: ResolvedOptions) -> Tracker:
    """The tracker that the options choose."""
    settings = options.tracker_settings()
    if options.tracking.tracker == "frame":
        return FrameTracker(**settings)
    if options.tracking.tracker == "paper":
        return PaperTracker(**settings)
    return ReleasedTracker(**settings)
