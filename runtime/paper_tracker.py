"""The tracker of the paper: section 3.2, "Merge Frame-level and Cross-frame Instance Segmentation", eq. 15-17."""
from __future__ import annotations

import numpy as np

from stmask_deploy.tracking_config import TRACKERS
from stmask_deploy.types import Array, Instances, IntArray, TrackedInstances

from .matching import NEW_OBJECT, best_objects, mask_cover, paper_scores
from .tracker import DROPPED, MAX_AGE_SHOWN, SCORE_THRESHOLD, TrackStore, keep_best, merge, shown

DEFAULTS = TRACKERS["paper"]


class PaperTracker(TrackStore):
    """Detections against propagated objects by embedding and mask, one threshold.

    s = alpha * cos + beta * mask IoU (eq. 15). A detection takes the id with the highest s if that exceeds epsilon,
    otherwise a new one (eq. 16). Ids without a detection are supplied by propagation (eq. 17).

    What the paper leaves open is settled as follows. Of several detections with one id the best-scoring keeps it and
    the others vanish. A matched detection replaces everything stored of its object, its embedding too; an object that
    is not detected keeps the embedding of its last detection. Propagated objects are shown under the rule of
    `ReleasedTracker`: for `max_age_shown` frames, above the score threshold (scores decay while propagated), with more
    than one mask cell set. Ids count from 0.

    Two settings go beyond the paper, and do nothing unless they are given: `embedding_momentum` and `max_cover`.

    Args:
        alpha: weight of the cosine of embeddings, in [-1, 1].
        beta: weight of the mask IoU, in [0, 1].
        epsilon: score a known object has to exceed, in [-alpha, alpha + beta]; the paper gives no value.
        embedding_momentum: m in [0, 1]. A detection with score s (cut to 0..1) leaves m * (1 - s) of the embedding that
            is known of its object and brings in the rest; 0 replaces it. What is half hidden or blurred scores low and
            looks like something else, and would otherwise be all that the object is known by from then on.
        max_cover: share of its mask, in [0, 1], that may lie in the mask of one better detection, matched or not, for a
            detection to become a new object; where more does, it vanishes. 1 lets every one become an object.
        max_age_shown: frames an object is shown after it was last detected.
        score_threshold: objects with a higher score are shown; lower and negative ones are kept all the same.
        retire_after: None keeps every object ever seen, as the paper's set of ids does; a number forgets objects not
            detected for more than that many frames. Ids are never used twice.
    """

    uses_propagation = True
    tanh_passes = 1

    def __init__(self, alpha: float = DEFAULTS["alpha"], beta: float = DEFAULTS["beta"],
                 epsilon: float = DEFAULTS["epsilon"], embedding_momentum: float = DEFAULTS["embedding_momentum"],
                 max_cover: float = DEFAULTS["max_cover"], max_age_shown: int = MAX_AGE_SHOWN,
                 score_threshold: float = SCORE_THRESHOLD, retire_after: int | None = None) -> None:
        super().__init__(retire_after)
        self._alpha = alpha
        self._beta = beta
        self._epsilon = epsilon
        self._embedding_momentum = embedding_momentum
        self._max_cover = max_cover
        self._max_age_shown = max_age_shown
        self._score_threshold = score_threshold

    def update(self, detections: Instances, propagated: TrackedInstances) -> TrackedInstances:
        """Take in one frame, see `Tracker.update`."""
        assignment = np.full(len(detections), NEW_OBJECT, np.int64)
        if len(propagated):
            scores = paper_scores(detections, propagated.instances, self._alpha, self._beta)
            assignment = keep_best(best_objects(scores, self._epsilon), detections.scores)
        is_new = assignment == NEW_OBJECT
        if self._max_cover < 1 and is_new.any():
            assignment[is_new & (mask_cover(detections.masks) > self._max_cover)] = DROPPED
        detections = detections.replace(embeddings=self._blend(detections, propagated.instances, assignment))
        tracks = merge(propagated, detections, assignment, self._next_id)
        self._store(tracks, int(np.count_nonzero(assignment == NEW_OBJECT)))
        return shown(self._tracks, self._max_age_shown, self._score_threshold)

    def _blend(self, detections: Instances, objects: Instances, assignment: IntArray) -> Array:
        """(n, E) embeddings to be kept: those of matched detections mixed with what is known of their objects."""
        matched = np.flatnonzero(assignment >= 0)
        if not self._embedding_momentum or not len(matched):  # without objects, `objects` has no columns
            return detections.embeddings
        kept = self._embedding_momentum * (1 - np.clip(detections.scores[matched], 0, 1))[:, None]
        blended = detections.embeddings.copy()
        mixed = (1 - kept) * detections.embeddings[matched] + kept * objects.embeddings[assignment[matched]]
        lengths = np.linalg.norm(mixed, axis=1, keepdims=True)
        blended[matched] = np.divide(mixed, lengths, out=blended[matched], where=lengths > 0)
        return blended
