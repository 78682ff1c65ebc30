"""Average precision and recall of one class, from its matches in all videos."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .matching import Matches
from .overlap import FloatArray

RECALL_POINTS = np.linspace(0, 1, 101)


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """Curves of one class in one area range, for t IoU thresholds."""

    precision: FloatArray  # (t, 101) at `RECALL_POINTS`, in [0, 1]
    recall: FloatArray  # (t,) with all results included, in [0, 1]


def precision_recall(matches: Sequence[Matches], max_results: int) -> PrecisionRecall | None:
    """Computed from one `Matches` per video and its first `max_results`; None if there are no ground-truth tracks."""
    num_tracks = sum(match.num_tracks for match in matches)
    if not num_tracks:
        return None
    order = np.argsort(-np.concatenate([match.scores[:max_results] for match in matches]), kind="stable")
    is_hit = np.concatenate([match.is_hit[:, :max_results] for match in matches], axis=1)[:, order]  # (t, n)
    counts = ~np.concatenate([match.is_ignored[:, :max_results] for match in matches], axis=1)[:, order]
    hits, misses = np.cumsum(is_hit & counts, axis=1), np.cumsum(~is_hit & counts, axis=1)
    recall = hits / num_tracks
    precision = hits / np.maximum(hits + misses, 1)
    precision = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]  # the best at this recall or higher
    curve = np.zeros((len(is_hit), len(RECALL_POINTS)))
    for level in range(len(curve)):
        positions = np.searchsorted(recall[level], RECALL_POINTS)  # n if that recall is never reached
        reached = positions < len(order)
        curve[level, reached] = precision[level, positions[reached]]
    return PrecisionRecall(curve, recall[:, -1] if len(order) else np.zeros(len(is_hit)))
