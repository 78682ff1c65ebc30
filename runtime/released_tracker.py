"""The tracker of the released STMask code, with temporal fusion."""
from __future__ import annotations

from stmask_deploy.types import Instances, TrackedInstances

from .matching import NEW_OBJECT_SCORE, best_objects, released_scores
from .propagating_tracker import MAX_AGE_SHOWN, PropagatingTracker
from .tracker import SCORE_THRESHOLD, keep_best, sized


class ReleasedTracker(PropagatingTracker):
    """Matches detections to propagated objects by embedding, mask and box, as the released models are evaluated.

    Every detection is matched to the object with the highest pair score, or becomes a new object if no score exceeds
    `new_object_score`; scores are computed once, against the propagated objects. If several detections match one
    object, the best-scoring keeps it and the others are dropped. An undetected object is propagated further and shown
    for `max_age_shown` frames; it may be matched again at any time.

    Args:
        max_age_shown: frames for which an object is shown after its last detection.
        score_threshold: objects with a higher score are shown; others, even with negative scores, are still tracked.
        new_object_score: pair score in [0, 4] that a match has to exceed.
        retire_after: None is the released behaviour: nothing is ever deleted, so memory and time per frame grow with
            every object seen. A number drops objects not detected for more than that many frames, which bounds both;
            an object that returns later then gets a new id. Ids are never reused.
    """

    def __init__(self, max_age_shown: int = MAX_AGE_SHOWN, score_threshold: float = SCORE_THRESHOLD,
                 new_object_score: float = NEW_OBJECT_SCORE, retire_after: int | None = None) -> None:
        super().__init__(max_age_shown, score_threshold, retire_after)
        self._new_object_score = new_object_score

    def update(self, detections: Instances, propagated: TrackedInstances) -> TrackedInstances:
        """Process one frame, see `Tracker.update`."""
        known = sized(propagated, detections)
        scores = released_scores(detections, known.instances)
        assignment = keep_best(best_objects(scores, self._new_object_score), detections.scores)
        return self._finish(known, detections, assignment)
