"""The tracker of the paper: section 3.2, "Merge Frame-level and Cross-frame Instance Segmentation", eq. 15-17."""
from __future__ import annotations

import numpy as np

from stmask_deploy.tracking_config import TRACKERS
from stmask_deploy.types import Array, Instances, IntArray, TrackedInstances

from .matching import NEW_OBJECT, best_objects, mask_cover, paper_scores
from .propagating_tracker import MAX_AGE_SHOWN, PropagatingTracker
from .tracker import DROPPED, SCORE_THRESHOLD, keep_best, sized

DEFAULTS = TRACKERS["paper"]


class PaperTracker(PropagatingTracker):
    """Matches detections to propagated objects by embedding and mask, with one threshold.

    s = alpha * cos + beta * mask IoU (eq. 15). A detection takes the id with the highest s if s exceeds epsilon,
    otherwise a new one (eq. 16). Ids without a detection are continued by propagation (eq. 17).

    The paper leaves the following open. If several detections match one id, the best-scoring keeps it and the others
    are dropped. A matched detection replaces all stored values of its object, including the embedding; an undetected
    object keeps the embedding of its last detection. Objects are shown under the rule of `ReleasedTracker`: for
    `max_age_shown` frames, above the score threshold (scores decay while propagated), with more than one mask cell set.
    Ids count from 0.

    Two settings go beyond the paper, and have no effect by default: `embedding_momentum` and `max_cover`.

    Args:
        alpha: weight of the cosine of the embeddings, which is in [-1, 1].
        beta: weight of the mask IoU, which is in [0, 1].
        epsilon: pair score that a match has to exceed, in [-alpha, alpha + beta]; the paper gives no value.
        embedding_momentum: m in [0, 1]. A detection with score s (clipped to 0..1) keeps a share m * (1 - s) of its
            object's known embedding and adds the rest; 0 replaces it. Occluded or blurred detections score low and have
            a misleading embedding, which would otherwise become the object's only one.
        max_cover: largest share, in [0, 1], of a new object's mask that may be covered by the mask of a single better
            detection, matched or not; detections covered more are dropped. 1 drops none.
        max_age_shown: frames for which an object is shown after its last detection.
        score_threshold: objects with a higher score are shown; others, even with negative scores, are still tracked.
        retire_after: None keeps every object ever seen, like the paper's set of ids; a number drops objects not
            detected for more than that many frames. Ids are never reused.
    """

    def __init__(self, alpha: float = DEFAULTS["alpha"], beta: float = DEFAULTS["beta"],
                 epsilon: float = DEFAULTS["epsilon"], embedding_momentum: float = DEFAULTS["embedding_momentum"],
                 max_cover: float = DEFAULTS["max_cover"], max_age_shown: int = MAX_AGE_SHOWN,
                 score_threshold: float = SCORE_THRESHOLD, retire_after: int | None = None) -> None:
        super().__init__(max_age_shown, score_threshold, retire_after)
        self._alpha = alpha
        self._beta = beta
        self._epsilon = epsilon
        self._embedding_momentum = embedding_momentum
        self._max_cover = max_cover

    def update(self, detections: Instances, propagated: TrackedInstances) -> TrackedInstances:
        """Process one frame, see `Tracker.update`."""
        known = sized(propagated, detections)
        scores = paper_scores(detections, known.instances, self._alpha, self._beta)
        assignment = keep_best(best_objects(scores, self._epsilon), detections.scores)
        is_new = assignment == NEW_OBJECT
        if self._max_cover < 1 and is_new.any():
            assignment[is_new & (mask_cover(detections.masks) > self._max_cover)] = DROPPED
        detections = detections.replace(embeddings=self._blend(detections, known.instances, assignment))
        return self._finish(known, detections, assignment)

    def _blend(self, detections: Instances, objects: Instances, assignment: IntArray) -> Array:
        """(n, E) embeddings to store: those of matched detections are blended with their objects' embeddings."""
        matched = np.flatnonzero(assignment >= 0)
        if not self._embedding_momentum:
            return detections.embeddings
        kept = self._embedding_momentum * (1 - np.clip(detections.scores[matched], 0, 1))[:, None]
        blended = detections.embeddings.copy()
        mixed = (1 - kept) * detections.embeddings[matched] + kept * objects.embeddings[assignment[matched]]
        lengths = np.linalg.norm(mixed, axis=1, keepdims=True)
        blended[matched] = np.divide(mixed, lengths, out=blended[matched], where=lengths > 0)
        return blended
