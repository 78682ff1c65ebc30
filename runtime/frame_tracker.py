"""The released tracker for models or runs without temporal fusion: it links detections of single frames."""
from __future__ import annotations

import numpy as np

from stmask_deploy.types import Instances, IntArray, TrackedInstances

from .masks import MASK_THRESHOLD
from .matching import NEW_OBJECT, NEW_OBJECT_SCORE, best_objects, mask_iou, released_scores
from .tracker import DROPPED, SCORE_THRESHOLD, TrackStore, keep_best, merge, origins, retire, sized

CROWDED_IOU = 0.3  # a detection whose mask exceeds this IoU with two or more stored masks does not update its object


class FrameTracker(TrackStore):
    """Matches detections against the values last stored for each object; nothing is propagated.

    The pair score and the rule for new objects are those of `ReleasedTracker`. A matched detection replaces the stored
    values of its object, unless its mask overlaps (IoU > 0.3) two or more stored masks: then it takes the id but leaves
    the stored values unchanged. Only the frame's own detections above the score threshold are shown.

    Two quirks of the released code, contained in its recorded values, belong to this mode. Mask coefficients pass
    through tanh twice: `tanh_passes` has to be passed to `assemble_masks`. And masks are binarised at prototype size
    before they are upsampled: the returned instances have such masks, so their outlines are rougher.

    Args:
        score_threshold: detections with a higher score are shown; all take part in matching.
        new_object_score: pair score in [0, 4] that a match has to exceed.
        retire_after: None keeps every object ever seen (released behaviour); a number drops objects not detected for
            more than that many frames. Ids are never reused.
    """

    tanh_passes = 2

    def __init__(self, score_threshold: float = SCORE_THRESHOLD, new_object_score: float = NEW_OBJECT_SCORE,
                 retire_after: int | None = None) -> None:
        super().__init__(retire_after)
        self._score_threshold = score_threshold
        self._new_object_score = new_object_score

    def update(self, detections: Instances, propagated: TrackedInstances) -> TrackedInstances:
        """Process one frame, see `Tracker.update`; `propagated` is ignored."""
        detections = detections.replace(masks=(detections.masks > MASK_THRESHOLD).astype(np.float32))
        known = sized(self._tracks, detections)
        scores = released_scores(detections, known.instances)
        assignment = keep_best(best_objects(scores, self._new_object_score), detections.scores)
        ids = self._ids(known, assignment)
        ages = known.ages + 1
        ages[assignment[assignment >= 0]] = 0
        overlaps = mask_iou(detections.masks, known.instances.masks) > CROWDED_IOU
        is_crowded = np.count_nonzero(overlaps, axis=1) >= 2
        stored = np.where(is_crowded & (assignment != NEW_OBJECT), DROPPED, assignment)
        merged = merge(known.replace(ages=ages), detections, origins(len(known), stored), self._next_id)
        self._keep(merged.where(retire(merged, self._retire_after)), stored)
        found = (assignment != DROPPED) & (detections.scores > self._score_threshold)
        return TrackedInstances(detections[found], ids[found], np.zeros(np.count_nonzero(found), np.int64))

    def _ids(self, tracks: TrackedInstances, assignment: IntArray) -> IntArray:
        """(n,) id of each detection; DROPPED for those without."""
        ids = assignment.copy()
        ids[assignment >= 0] = tracks.ids[assignment[assignment >= 0]]
        new = assignment == NEW_OBJECT
        ids[new] = self._next_id + np.arange(np.count_nonzero(new))
        return ids
