"""Fast non-maximum suppression (YOLACT), over all classes at once or class by class.

"Fast" means that any better row suppresses a row, even if it is itself suppressed: one overlap matrix, no loop.
Rows of equal score keep their input order, so results do not depend on the machine.
"""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stmask_deploy.geometry import box_iou
from stmask_deploy.types import Array, Candidates, IntArray, Rows


@dataclass(frozen=True)
class Detections(Rows):
    """The kept candidates, best score first."""

    rows: IntArray  # (n,) int64 indices into the candidates; a candidate may appear once for each of several classes
    scores: Array  # (n,) class probability * centerness, in (-1, 1)
    class_ids: IntArray  # (n,) int64, 1-based

    def __post_init__(self) -> None:
        self._check({})


def cross_class_fast_nms(candidates: Candidates, *, iou_threshold: float = 0.5, top_k: int = 200) -> Detections:
    """One class per candidate (its most probable one), suppression across classes.

    Args:
        candidates: n rows, any order.
        iou_threshold: a row is suppressed if its IoU with a better row exceeds this.
        top_k: number of rows that take part, the best ones.

    Returns:
        The kept rows. Scores are not thresholded: low and negative ones are kept (a tracker may use them).
    """
    if not len(candidates):
        return _no_detections()
    classes = candidates.class_scores.argmax(axis=1)
    scores = candidates.class_scores.max(axis=1) * candidates.centerness
    order = _best_first(scores)[:top_k]
    rows = order[_kept(candidates.boxes[order], iou_threshold)]
    return Detections(rows, scores[rows], classes[rows].astype(np.int64) + 1)


def per_class_fast_nms(candidates: Candidates, *, iou_threshold: float = 0.5, top_k: int = 200,
                       score_threshold: float = 0.05, max_detections: int = 100) -> Detections:
    """Suppression within each class, then the best detections of all classes; a candidate may yield several.

    Args:
        candidates: n rows, any order.
        iou_threshold: a row is suppressed if its IoU with a better row of the same class exceeds this.
        top_k: number of rows of each class that take part, the best ones.
        score_threshold: only scores (class probability * centerness) above this are kept.
        max_detections: maximum number of rows returned.
    """
    scores = candidates.class_scores * candidates.centerness[:, None]  # (n, C)
    # Only better rows suppress a row, so dropping low scores first gives the same result faster.
    above = scores > score_threshold
    parts = [_no_detections()]
    for index in np.flatnonzero(above.any(axis=0)):
        members = np.flatnonzero(above[:, index])
        order = members[_best_first(scores[members, index])[:top_k]]
        rows = order[_kept(candidates.boxes[order], iou_threshold)]
        parts.append(Detections(rows, scores[rows, index], np.full(len(rows), index + 1, np.int64)))
    found = Detections.concat(parts)
    return found[_best_first(found.scores)[:max_detections]]


def _no_detections() -> Detections:
    return Detections(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.int64))


def _best_first(scores: Array) -> IntArray:
    return np.argsort(-scores, kind="stable").astype(np.int64)


def _kept(boxes: Array, iou_threshold: float) -> IntArray:
    """(n, 4) boxes, best first -> indices of those whose IoU with every earlier box is at most the threshold."""
    places = np.arange(len(boxes))
    overlaps = (box_iou(boxes, boxes) > iou_threshold) & (places[:, None] < places)  # (n, n) [better, worse]
    return np.flatnonzero(np.logical_not(overlaps.any(axis=0)))
