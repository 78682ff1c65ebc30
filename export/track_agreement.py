"""Comparison of the objects shown by two runs over one clip, the first of which is the reference."""
from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from stmask_deploy.one_to_one import one_to_one
from stmask_deploy.runtime.result import FrameResult

SCORE_TOLERANCE, BOX_TOLERANCE_PX, MASK_IOU = 1e-3, 0.5, 0.99


@dataclass(frozen=True)
class TrackAgreement:
    """Number of rows (instances in a frame) of both runs, and of matching rows with corresponding identities."""

    frames: int
    reference_rows: int
    found_rows: int
    matched: int

    @property
    def recall(self) -> float:
        return self.matched / self.reference_rows if self.reference_rows else 1.0

    @property
    def precision(self) -> float:
        return self.matched / self.found_rows if self.found_rows else 1.0

    def line(self) -> str:
        return (f"{self.frames} frames, {self.reference_rows} rows in PyTorch, {self.found_rows} here, "
                f"{self.matched} the same (recall {self.recall:.4f}, precision {self.precision:.4f})")


class TrackComparison:
    """Frame-by-frame comparison; identities of the two runs are matched one to one over the whole clip."""

    def __init__(self) -> None:
        self._frames = self._reference_rows = self._found_rows = 0
        self._pairs: list[tuple[int, int, int, int]] = []  # frame, reference row, reference id, found id

    def add(self, reference: FrameResult, found: FrameResult) -> None:
        """Add one frame of both runs."""
        frame, self._frames = self._frames, self._frames + 1
        self._reference_rows += len(reference)
        self._found_rows += len(found)
        for i in range(len(reference)):
            near = ((found.class_ids == reference.class_ids[i])
                    & (np.abs(found.scores - reference.scores[i]) <= SCORE_TOLERANCE)
                    & (np.abs(found.boxes_px - reference.boxes_px[i]).max(axis=1, initial=0) <= BOX_TOLERANCE_PX))
            for j in np.flatnonzero(near):
                if _same_mask(reference.masks[i], found.masks[j]):
                    self._pairs.append((frame, i, int(reference.ids[i]), int(found.ids[j])))

    def result(self) -> TrackAgreement:
        votes = Counter((a, b) for _, _, a, b in self._pairs)
        partner = dict(one_to_one(pair for pair, _ in votes.most_common()))
        matched = {(frame, row) for frame, row, a, b in self._pairs if partner.get(a) == b}
        return TrackAgreement(self._frames, self._reference_rows, self._found_rows, len(matched))


def _same_mask(a: np.ndarray, b: np.ndarray) -> bool:
    union = int((a | b).sum())
    return int((a & b).sum()) >= MASK_IOU * union or int((a ^ b).sum()) <= 3
