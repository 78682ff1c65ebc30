"""The stateless part of processing a frame: one picture in, its feature maps and detections out.

The instance graph computes mask coefficients and embeddings for the rows that NMS keeps. In bundles without an
instance graph, the frame graph computes them for every anchor.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stmask_deploy.bundle import INSTANCE_MAPS, INSTANCE_OUTPUTS, PROTOTYPE_INPUTS, PROTOTYPE_OUTPUTS, TEMPORAL_MAPS
from stmask_deploy.errors import StmaskError
from stmask_deploy.geometry import FrameGeometry
from stmask_deploy.types import Array, Candidates, FrameFeatures, IntArray

from .backends import check_finite
from .loading import Bundle, run_outputs
from .nms import Detections, cross_class_fast_nms, per_class_fast_nms
from .preprocess import check_image, geometry_of, preprocess
from .resolved_options import ResolvedOptions
from .timing import FrameTimes


@dataclass(frozen=True, eq=False)
class DetectedFrame:
    """The detections of a single frame, n rows; none between key frames, where the detector does not run."""

    is_key: bool
    geometry: FrameGeometry
    features: FrameFeatures
    rows: Candidates  # (n) kept by NMS, best score first; a candidate may appear once for each of several classes
    scores: Array  # (n,) class probability * centerness, in (-1, 1)
    class_ids: IntArray  # (n,) int64, 1-based
    lost_candidates: int  # see `Detector`
    times: FrameTimes
    masks: Array | None = None  # (n, Hm, Wm) of the rows, see `assemble_masks`; None if not assembled yet


class Detector:
    """Preprocessing, frame graph, candidate selection, NMS and instance graph. Stateless, so it may run frames ahead.

    Candidates are lost if more anchors exceed the candidate threshold than the frame graph has rows; they are counted
    only in frames where they could have changed the result.

    Args:
        bundle: opened graphs.
        options: resolved for this bundle.
    """

    def __init__(self, bundle: Bundle, options: ResolvedOptions) -> None:
        self._graph, self._instances = bundle.frame, bundle.instances
        self._outputs = run_outputs(bundle.description, bundle.roles)
        masks = PROTOTYPE_OUTPUTS if bundle.prototypes is None else PROTOTYPE_INPUTS
        self._outputs_between = masks + TEMPORAL_MAPS  # between key frames
        self._model = bundle.description.model
        self._options, self._threshold = options, options.score_threshold

    def detect(self, image: NDArray[np.uint8], position: int, times: FrameTimes) -> DetectedFrame:
        """Process the frame at `position`, counted from 0 within the video; every `detect_every`-th is a key frame.

        Args:
            image: (H, W, 3) uint8 BGR, any size.
            position: only decides whether the frame is a key frame.
            times: of this frame; every stage adds its own.

        Raises:
            InputError: `image` is not such an array.
            StmaskError: a graph fails, or returns NaN or infinite values.
        """
        is_key = self.is_key(position)
        with times.stage("preprocess"):
            prepared, geometry = preprocess(check_image(image), self._model)
        with times.stage("frame_graph"):
            outputs = self._graph.run({"frame": prepared}, self._outputs if is_key else self._outputs_between,
                                      keep=INSTANCE_MAPS + TEMPORAL_MAPS)
        features = _features(outputs)
        if features.prototypes is not None:
            check_finite("frame", features.prototypes)
        if not is_key:
            return self._undetected(geometry, features, times)
        with times.stage("nms"):
            candidates, anchors, num_lost = self._candidates(outputs)
            kept = self._suppress(candidates)
        rows = self._complete(candidates[kept.rows], anchors[kept.rows], outputs, times)
        return DetectedFrame(is_key, geometry, features, rows, kept.scores, kept.class_ids, num_lost, times)

    def is_key(self, position: int) -> bool:
        """Whether the frame at `position` is a key frame."""
        return position % self._options.detect_every == 0

    def skip(self, image: NDArray[np.uint8], times: FrameTimes) -> DetectedFrame:
        """A frame between key frames of which nothing is read, since no objects are known: no graph runs.

        Its maps are empty.

        Raises:
            InputError: see `detect`.
        """
        with times.stage("preprocess"):
            geometry = geometry_of(check_image(image), self._model)
        nothing = np.zeros((0, 0, self._model.num_prototypes), np.float32)
        return self._undetected(geometry, _features({"prototypes": nothing}), times)

    def _undetected(self, geometry: FrameGeometry, features: FrameFeatures, times: FrameTimes) -> DetectedFrame:
        return DetectedFrame(False, geometry, features, self._no_rows(), np.zeros(0, np.float32),
                             np.zeros(0, np.int64), 0, times)

    def _complete(self, rows: Candidates, anchors: IntArray, outputs: dict[str, Any],
                  times: FrameTimes) -> Candidates:
        """The kept rows, with their mask coefficients and embeddings."""
        model = self._model
        if self._instances is None:
            return rows
        if not len(rows):
            return rows.replace(mask_coeffs=np.zeros((0, model.num_prototypes), np.float32),
                                embeddings=np.zeros((0, model.embedding_dim), np.float32))
        chosen, places = np.unique(anchors, return_inverse=True)  # per-class NMS may keep an anchor more than once
        with times.stage("instance_graph"):
            found = self._instances.run({"shared": outputs["shared"], "anchor_index": chosen})
        check_finite("instance", *found.values())
        return rows.replace(**{name: found[name][places] for name in INSTANCE_OUTPUTS})

    def _no_rows(self) -> Candidates:
        model = self._model
        return Candidates(*(np.zeros((0, *shape), np.float32) for shape in
                            ((4,), (model.num_classes - 1,), (), (model.num_prototypes,), (model.embedding_dim,))))

    def _candidates(self, outputs: dict[str, Any]) -> tuple[Candidates, IntArray, int]:
        """The candidates, best first and ties in anchor order; their anchor indices; the number of lost candidates.

        Mask coefficients and embeddings have no columns if the instance graph computes them.
        """
        found = int(outputs["num_candidates"])
        if found < 0:
            raise StmaskError("the frame graph gave a negative number of candidates; export the checkpoint again")
        count = min(found, len(outputs["boxes"]))
        anchors = outputs["anchor_index"][:count]
        nothing = np.zeros((count, 0), np.float32)
        rows = Candidates(*(outputs[name][:count] for name in ("boxes", "class_scores", "centerness")),
                          *(outputs.get(name, nothing)[:count] for name in INSTANCE_OUTPUTS))
        # NaN is above no threshold, so anchors with such scores are never among the rows that count.
        check_finite("frame", outputs["class_scores"], rows.boxes, rows.centerness, rows.mask_coeffs, rows.embeddings)
        best = rows.class_scores.max(axis=1, initial=0)
        scores = best * rows.centerness
        order = np.lexsort((anchors, -scores))
        order = order[best[order] > np.float32(self._threshold)]
        chosen = rows[order]
        misses_rows = found > count and self._misses_rows(len(chosen), float(scores.min()))
        return chosen, anchors[order], found - count if misses_rows else 0

    def _misses_rows(self, num_candidates: int, worst_score: float) -> bool:
        """Whether candidates that the graph left out, which score at most `worst_score`, could have changed the result.
        """
        if self._options.nms == "per-class":
            return worst_score > self._threshold
        return num_candidates < self._options.top_k

    def _suppress(self, candidates: Candidates) -> Detections:
        options = self._options
        if options.nms == "per-class":
            return per_class_fast_nms(candidates, iou_threshold=options.nms_iou, top_k=options.top_k,
                                      score_threshold=self._threshold, max_detections=options.max_detections)
        return cross_class_fast_nms(candidates, iou_threshold=options.nms_iou, top_k=options.top_k)


def _features(outputs: dict[str, Any]) -> FrameFeatures:
    """The frame's feature maps; those for the temporal graph are empty without temporal fusion."""
    nothing = np.zeros((1, 0, 0, 0), np.float32)
    return FrameFeatures(outputs.get("prototypes"), outputs.get("p3"), outputs.get("fpn", nothing),
                         outputs.get("temporal", nothing))
