"""Identity switches and mask quality of results, frame by frame and regardless of class."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ..one_to_one import one_to_one
from .overlap import FloatArray, Overlap

MATCH_IOU = 0.5  # lowest mask IoU at which a result matches an object in a frame


@dataclass(frozen=True)
class IdentityScores:
    """Sums over the videos of a dataset, excluding crowds."""

    tracks: int = 0
    switches: int = 0  # times an object is matched to a different identity from its previous match
    object_frames: int = 0  # (object, frame) pairs in which the object is visible
    matched_frames: int = 0  # those of them with a matched result
    iou_sum: float = 0.0  # over the matched ones

    def __add__(self, other: IdentityScores) -> IdentityScores:
        return IdentityScores(*(a + b for a, b in zip(asdict(self).values(), asdict(other).values(), strict=True)))

    @property
    def switches_per_ten_tracks(self) -> float | None:
        """Identity switches per ten annotated objects; None without objects."""
        return 10 * self.switches / self.tracks if self.tracks else None

    @property
    def matched_percent(self) -> float | None:
        """Percentage of the object frames that are matched."""
        return 100 * self.matched_frames / self.object_frames if self.object_frames else None

    @property
    def mean_iou(self) -> float | None:
        """Mean mask IoU of the matched object frames in percent; None if there are none."""
        return 100 * self.iou_sum / self.matched_frames if self.matched_frames else None

    @property
    def j(self) -> float | None:
        """Mean mask IoU over all object frames in percent, counting unmatched ones as 0."""
        return 100 * self.iou_sum / self.object_frames if self.object_frames else None

    def to_dict(self) -> dict[str, float | int | None]:
        """Plain JSON; docs/evaluation.md explains the keys."""
        return {"switches": self.switches, "switches_per_ten_tracks": self.switches_per_ten_tracks,
                "object_frames": self.object_frames, "matched_frames": self.matched_frames,
                "matched_percent": self.matched_percent, "mean_iou": self.mean_iou, "j": self.j}


def identity_scores(overlap: Overlap, identities: Sequence[int]) -> IdentityScores:
    """Scores of one video.

    Args:
        overlap: of n results, best score first, with g non-crowd tracks.
        identities: (n) identities of the results.
    """
    num_tracks = overlap.truth_areas.shape[1]
    last: list[int | None] = [None] * num_tracks
    switches, matched, iou_sum = 0, 0, 0.0
    for rows, tracks, ious in overlap.frame_ious():
        for i, j in match_frame(ious):
            identity, track = identities[int(rows[i])], int(tracks[j])
            switches += last[track] not in (None, identity)
            last[track] = identity
            matched += 1
            iou_sum += float(ious[i, j])
    return IdentityScores(num_tracks, switches, int((overlap.truth_areas > 0).sum()), matched, iou_sum)


def match_frame(ious: FloatArray) -> list[tuple[int, int]]:
    """Greedy one-to-one (row, column) pairs by falling IoU down to `MATCH_IOU`; ties go to the first row.

    Args:
        ious: (n, g) mask IoUs in one frame.
    """
    rows, columns = np.nonzero(ious >= MATCH_IOU)
    order = np.argsort(-ious[rows, columns], kind="stable")
    return list(one_to_one(zip(rows[order].tolist(), columns[order].tolist(), strict=True)))
