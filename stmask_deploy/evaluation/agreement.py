"""How much of one run over a video another run over it shows, as numbers, JSON and text."""
from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .evaluation import percent


@dataclass(frozen=True)
class Agreement:
    """Rows are instances in frames; rows whose mask is empty are left out. Shares are percent, 0 to 100.

    Every identity of the first run corresponds to at most one of the second and the other way round. A row is matched
    if the corresponding identity has one in the same frame, with a mask IoU of 0.5 or more.
    """

    frames: int
    reference_rows: int
    rows: int
    matched: int
    mean_iou: float | None  # of the masks of the matched rows
    lowest_iou: float | None
    same_class: float | None  # share of the matched rows
    mean_score_difference: float | None  # absolute, of the matched rows
    highest_score_difference: float | None
    mean_box_difference_px: float | None  # of the side that differs most
    highest_box_difference_px: float | None
    reference_tracks: int  # identities
    tracks: int
    switches: int  # of the second run, with the identities of the first as the objects
    switches_per_ten_tracks: float | None
    ap: float | None  # of the second run's result list, with the first run's as the truth
    ap50: float | None
    ap75: float | None

    @property
    def recall(self) -> float | None:
        """Share of the first run's rows that are matched."""
        return 100 * self.matched / self.reference_rows if self.reference_rows else None

    @property
    def precision(self) -> float | None:
        """Share of the second run's rows that are matched."""
        return 100 * self.matched / self.rows if self.rows else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; docs/evaluation.md explains the keys."""
        return {**asdict(self), "recall": self.recall, "precision": self.precision}

    def summary(self) -> str:
        """One line."""
        return (f"recall {percent(self.recall)}, precision {percent(self.precision)}, mask IoU "
                f"{percent(self.mean_iou)}, {self.switches} identity switches, AP {percent(self.ap)}")

    def lines(self) -> list[str]:
        """For people."""
        return [f"{self.frames} frames; {self.reference_rows} rows of {self.reference_tracks} identities in the "
                f"reference, {self.rows} of {self.tracks} here",
                f"rows: {self.matched} matched, recall {percent(self.recall)}, precision {percent(self.precision)}",
                f"masks: mean IoU {percent(self.mean_iou)}, lowest {percent(self.lowest_iou)}",
                f"classes: the same in {percent(self.same_class)} % of the matched",
                f"scores: differ by {_number(self.mean_score_difference)}, at most "
                f"{_number(self.highest_score_difference)}",
                f"boxes: differ by {_number(self.mean_box_difference_px)} px, at most "
                f"{_number(self.highest_box_difference_px)} px",
                f"identities: {self.switches} switches, {percent(self.switches_per_ten_tracks)} per ten tracks",
                f"AP {percent(self.ap)}, AP50 {percent(self.ap50)}, AP75 {percent(self.ap75)}"]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
