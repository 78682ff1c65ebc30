"""The per-frame pipeline: one picture in, tracked masks out."""
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from stmask_deploy.errors import StmaskError
from stmask_deploy.types import Candidates, FrameFeatures, Instances, TrackedInstances

from .frame_tracker import FrameTracker
from .loading import Bundle
from .masks import assemble_masks
from .nms import Detections, cross_class_fast_nms, per_class_fast_nms
from .options import RunOptions
from .paper_tracker import PaperTracker
from .preprocess import check_image, preprocess
from .propagate import propagate
from .released_tracker import ReleasedTracker
from .result import FrameResult
from .timing import Timer
from .tracker import Tracker

Arrays = dict[str, NDArray[Any]]


class Pipeline:
    """One video in progress. It owns what lasts from frame to frame: the previous features and the tracker.

    Args:
        bundle: opened graphs.
        options: resolved for this bundle, see `RunOptions.resolve`.
        timer: is told about every stage.

    Attributes:
        lost_candidates: anchors over the candidate threshold that the frame graph had no row left for, so far; counted
            in frames where they could have changed the result.
    """

    def __init__(self, bundle: Bundle, options: RunOptions, timer: Timer) -> None:
        self._bundle = bundle
        self._model = bundle.description.model
        self._options = options
        self._timer = timer
        self._tracker = make_tracker(options)
        self._previous: FrameFeatures | None = None
        self.lost_candidates = 0

    def step(self, image: NDArray[np.uint8], index: int, time_s: float) -> FrameResult:
        """Take in the next frame, (H, W, 3) uint8 BGR of any size; `index` and `time_s` are passed on to the result."""
        stage = self._timer.stage
        with stage("preprocess"):
            prepared, geometry = preprocess(check_image(image), self._model)
        with stage("frame_graph"):
            outputs = self._bundle.frame.run({"frame": prepared})
        features = _features(outputs)
        with stage("nms"):
            candidates = self._candidates(outputs)
            kept = self._suppress(candidates)
        with stage("masks"):
            detections = self._assemble(candidates, kept, features)
        propagated = self._propagate(features)
        with stage("tracker"):
            tracked = self._tracker.update(detections, propagated)
        self._previous = features
        return FrameResult.from_tracked(index, time_s, tracked, geometry, self._model.class_names)

    def _candidates(self, outputs: Arrays) -> Candidates:
        """The rows that hold candidates, best first and in the anchors' order where equal, whatever the backend's."""
        found = int(outputs["num_candidates"])
        count = min(found, len(outputs["boxes"]))
        anchors = outputs["anchor_index"][:count]
        rows = Candidates(*(outputs[name][:count] for name in
                            ("boxes", "class_scores", "centerness", "mask_coeffs", "embeddings")))
        _check_finite("frame", rows.boxes, rows.class_scores, rows.centerness, rows.mask_coeffs, rows.embeddings)
        best = rows.class_scores.max(axis=1, initial=0)
        scores = best * rows.centerness
        order = np.lexsort((anchors, -scores))
        chosen = rows[order[best[order] > np.float32(self._options.score_threshold)]]
        if found > count and self._misses_rows(len(chosen), float(scores.min())):
            self.lost_candidates += found - count
        return chosen

    def _misses_rows(self, num_candidates: int, worst_score: float) -> bool:
        """Whether candidates that did not leave the graph, none of which scores above `worst_score`, could matter."""
        if self._options.nms == "per-class":
            return worst_score > self._options.score_threshold
        return num_candidates < self._options.top_k

    def _suppress(self, candidates: Candidates) -> Detections:
        options = self._options
        if options.nms == "per-class":
            return per_class_fast_nms(candidates, iou_threshold=options.nms_iou, top_k=options.top_k,
                                      score_threshold=options.score_threshold, max_detections=options.max_detections)
        return cross_class_fast_nms(candidates, iou_threshold=options.nms_iou, top_k=options.top_k)

    def _assemble(self, candidates: Candidates, kept: Detections, features: FrameFeatures) -> Instances:
        rows = candidates[kept.rows]
        masks = assemble_masks(features.prototypes, rows.mask_coeffs, rows.boxes,
                               tanh_passes=self._tracker.tanh_passes)
        return Instances(rows.boxes, kept.scores, kept.class_ids, rows.centerness, rows.mask_coeffs, rows.embeddings,
                         masks)

    def _propagate(self, features: FrameFeatures) -> TrackedInstances:
        """Every object known, moved from the previous frame to this one; also where nothing is detected."""
        tracks = self._tracker.tracks
        graph, previous = self._bundle.temporal, self._previous
        if graph is None or previous is None or not self._tracker.uses_propagation or not len(tracks):
            return tracks
        with self._timer.stage("temporal_graph"):
            deltas = graph.run({"prev_fpn": previous.fpn, "fpn": features.fpn, "prev_temporal": previous.temporal,
                                "temporal": features.temporal, "boxes": tracks.instances.boxes})
        _check_finite("temporal", *deltas.values())
        with self._timer.stage("masks"):
            return propagate(tracks, deltas["box_deltas"], deltas["coeff_deltas"], features.prototypes,
                             self._options.score_decay)


def _check_finite(graph: str, *columns: NDArray[Any]) -> None:
    """NaN would not stop the trackers: it matches nothing, and every object would be a new one in every frame."""
    if not all(np.isfinite(column).all() for column in columns):
        raise StmaskError(f"the {graph} graph returned values that are not numbers; try precision f32, "
                          "or verify the bundle with stmask-verify")


def _features(outputs: Arrays) -> FrameFeatures:
    """The frame's maps; a model without temporal fusion has none for the temporal graph."""
    nothing = np.zeros((1, 0, 0, 0), np.float32)
    return FrameFeatures(outputs["prototypes"], outputs.get("fpn", nothing), outputs.get("temporal", nothing))


def make_tracker(options: RunOptions) -> Tracker:
    """The tracker that resolved options ask for."""
    settings = options.tracker_settings()
    if options.tracker == "frame":
        return FrameTracker(**settings)
    if options.tracker == "paper":
        return PaperTracker(**settings)
    return ReleasedTracker(**settings)
