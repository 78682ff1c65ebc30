"""Agreement between two runs over one video, as numbers, JSON and text."""
from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from stmask_deploy.wording import counted

from .evaluation import percent


@dataclass(frozen=True)
class Agreement:
    """A row is an instance in a frame; rows with an empty mask are left out. Percentages range from 0 to 100.

    Identities of the two runs correspond one to one, as far as they have counterparts. A row is matched if the
    corresponding identity has a row in the same frame with a mask IoU of at least 0.5.
    """

    frames: int
    reference_rows: int
    rows: int
    matched: int
    mean_iou: float | None  # percent, of the masks of the matched rows
    lowest_iou: float | None
    same_class: float | None  # percent of the matched rows
    mean_score_difference: float | None  # absolute, of the matched rows
    highest_score_difference: float | None
    mean_box_difference_px: float | None  # of the coordinate that differs most
    highest_box_difference_px: float | None
    reference_tracks: int  # identities
    tracks: int
    switches: int  # identity switches of the second run, with the first run's identities as ground truth
    switches_per_ten_tracks: float | None
    ap: float | None  # of the second run, with the first run as ground truth
    ap50: float | None
    ap75: float | None

    @property
    def recall(self) -> float | None:
        """Percentage of the first run's rows that are matched."""
        return 100 * self.matched / self.reference_rows if self.reference_rows else None

    @property
    def precision(self) -> float | None:
        """Percentage of the second run's rows that are matched."""
        return 100 * self.matched / self.rows if self.rows else None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; docs/evaluation.md explains the keys."""
        return {**asdict(self), "recall": self.recall, "precision": self.precision}

    def summary(self) -> str:
        """One line of text."""
        return (f"recall {percent(self.recall)}, precision {percent(self.precision)}, mask IoU "
                f"{percent(self.mean_iou)}, {self.switches} identity switches, AP {percent(self.ap)}")

    def lines(self) -> list[str]:
        """Readable text, line by line."""
        rows, identities = counted(self.reference_rows, "row"), counted(self.reference_tracks, "identity", "identities")
        return [f"{counted(self.frames, 'frame')}; {rows} of {identities} in the reference, "
                f"{self.rows} of {self.tracks} here",
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
