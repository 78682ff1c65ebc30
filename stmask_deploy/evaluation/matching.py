"""Decides which results count as hits: COCO's greedy assignment by score, within one video and class."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .overlap import BoolArray, FloatArray

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)


@dataclass(frozen=True, eq=False)
class Matches:
    """Results of one video and class against its tracks; t IoU thresholds, n results, best score first."""

    scores: FloatArray  # (n,) descending
    is_hit: BoolArray  # (t, n) matched to a track
    is_ignored: BoolArray  # (t, n) counts as neither true nor false positive
    num_tracks: int  # ground-truth tracks that are not ignored


def match_results(ious: FloatArray, scores: FloatArray, is_outside: BoolArray, is_crowd: BoolArray,
                  is_truth_outside: BoolArray) -> Matches:
    """Match n results to g tracks at every threshold of `IOU_THRESHOLDS`.

    A result takes the free track of highest IoU among those that count, or else among the ignored ones, in which case
    the result is ignored too; crowds can be matched repeatedly. Unmatched results outside the area range are ignored.

    Args:
        ious: (n, g) of results and tracks, rows in the order of `scores`.
        scores: (n,) descending.
        is_outside: (n,) results whose area is outside the evaluated range.
        is_crowd: (g,) tracks that are crowds.
        is_truth_outside: (g,) tracks whose area is outside the evaluated range.
    """
    to_ignore = is_crowd | is_truth_outside
    order = np.argsort(to_ignore, kind="stable")  # tracks that count come first
    table, crowd, ignored = ious[:, order].tolist(), is_crowd[order].tolist(), to_ignore[order].tolist()
    shape = (len(IOU_THRESHOLDS), len(scores))
    is_hit, is_ignored = np.zeros(shape, np.bool_), np.zeros(shape, np.bool_)
    for level, threshold in enumerate(IOU_THRESHOLDS.tolist()):
        taken = [False] * len(crowd)
        for row, overlaps in enumerate(table):
            partner = _best_track(overlaps, threshold, taken, ignored)
            if partner is None:
                is_ignored[level, row] = is_outside[row]
            else:
                is_hit[level, row], is_ignored[level, row] = True, ignored[partner]
                taken[partner] = not crowd[partner]
    return Matches(scores, is_hit, is_ignored, int((~to_ignore).sum()))


def _best_track(overlaps: list[float], threshold: float, taken: list[bool], ignored: list[bool]) -> int | None:
    """Position of the track to match; ties go to the last one, as in COCO."""
    best, needed = None, threshold
    for position, overlap in enumerate(overlaps):
        if taken[position]:
            continue
        if best is not None and ignored[position] and not ignored[best]:
            break  # the rest are ignored tracks, and one that counts has been found
        if overlap >= needed:
            best, needed = position, overlap
    return best
