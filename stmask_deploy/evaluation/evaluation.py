"""The scores of an evaluation as numbers, JSON and text. Percentages are 0 to 100; None if nothing can be scored."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from stmask_deploy.wording import counted, on_one_line

from .average_precision import PrecisionRecall
from .identities import IdentityScores
from .matching import IOU_THRESHOLDS

Curves = Mapping[str, Sequence[PrecisionRecall | None]]  # one per class: all, small, medium, large, first, first ten
_Scores = TypeVar("_Scores", bound="PrecisionScores")
COLUMNS = {"AP": "ap", "AP50": "ap50", "AP75": "ap75", "small": "ap_small", "medium": "ap_medium",
           "large": "ap_large", "AR1": "ar1", "AR10": "ar10"}


@dataclass(frozen=True, kw_only=True)
class PrecisionScores:
    """The scores of YouTube-VIS in percent; None if there is no track of that class or size."""

    ap: float | None  # mean over IoU thresholds 0.50, 0.55, ... 0.95
    ap50: float | None
    ap75: float | None
    ap_small: float | None  # by mean mask area: up to 128^2 pixels
    ap_medium: float | None
    ap_large: float | None  # 256^2 pixels or more
    ar1: float | None  # recall with the best result of a class in each video, mean over the thresholds
    ar10: float | None  # the same with the best ten

    @classmethod
    def of(cls: type[_Scores], curves: Curves, **others: Any) -> _Scores:
        """Means over the classes that have tracks; `others` are the fields of a subclass."""
        return cls(ap=_precision(curves["all"]), ap50=_precision(curves["all"], 0.5),
                   ap75=_precision(curves["all"], 0.75), ap_small=_precision(curves["small"]),
                   ap_medium=_precision(curves["medium"]), ap_large=_precision(curves["large"]),
                   ar1=_recall(curves["first"]), ar10=_recall(curves["first ten"]), **others)

    def precision_dict(self) -> dict[str, float | None]:
        """The scores by name."""
        return {name: getattr(self, name) for name in COLUMNS.values()}


@dataclass(frozen=True, kw_only=True)
class ClassScores(PrecisionScores):
    """The scores of one class."""

    category_id: int  # as in the annotation file
    name: str
    tracks: int  # annotated, excluding crowds

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"category_id": self.category_id, "name": self.name, "tracks": self.tracks, **self.precision_dict()}


@dataclass(frozen=True, kw_only=True)
class Evaluation(PrecisionScores):
    """The scores of a result list on a dataset."""

    videos: int
    results: int  # entries of the list
    per_class: tuple[ClassScores, ...]  # in the order of the category ids
    identities: IdentityScores
    shown_score: float  # lowest score of results that count for `identities`

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; docs/evaluation.md explains the keys."""
        return {"videos": self.videos, "tracks": self.identities.tracks, "results": self.results,
                **self.precision_dict(),
                "identities": {"shown_score": self.shown_score, **self.identities.to_dict()},
                "classes": [one.to_dict() for one in self.per_class]}

    def summary(self) -> str:
        """One line."""
        return (f"AP {percent(self.ap)}, AP50 {percent(self.ap50)}, AP75 {percent(self.ap75)}, "
                f"{percent(self.identities.switches_per_ten_tracks)} identity switches per ten tracks")

    def lines(self) -> list[str]:
        """A table of the classes that have tracks, headed by all classes together, and the identity and mask scores."""
        rows = [(on_one_line(one.name), one) for one in self.per_class if one.tracks]
        width = max(len("all classes"), *(len(name) for name, _ in rows), 0)
        table = [_row("", "tracks", COLUMNS, width),
                 _row("all classes", self.identities.tracks, map(percent, self.precision_dict().values()), width)]
        table += [_row(name, one.tracks, map(percent, one.precision_dict().values()), width) for name, one in rows]
        kept = self.identities
        counts = counted(self.videos, "video"), counted(kept.tracks, "track"), counted(self.results, "result")
        return [", ".join(counts), *table,
                f"identities: {kept.switches} switches, {percent(kept.switches_per_ten_tracks)} per ten tracks "
                f"(results of score {self.shown_score:g} and more)",
                f"masks: J {percent(kept.j)} over {kept.object_frames} object frames; "
                f"{percent(kept.matched_percent)} % of them matched, with a mean IoU of {percent(kept.mean_iou)}"]


def percent(value: float | None) -> str:
    """The value with one decimal; "-" for None."""
    return "-" if value is None else f"{value:.1f}"


def _row(name: str, tracks: object, cells: Any, width: int) -> str:
    return f"{name:{width}} {tracks!s:>7}" + "".join(f"{cell:>8}" for cell in cells)


def _precision(curves: Sequence[PrecisionRecall | None], threshold: float | None = None) -> float | None:
    chosen = [curve.precision if threshold is None else curve.precision[_level(threshold)]
              for curve in curves if curve is not None]
    return 100 * float(np.mean(chosen)) if chosen else None


def _recall(curves: Sequence[PrecisionRecall | None]) -> float | None:
    chosen = [curve.recall for curve in curves if curve is not None]
    return 100 * float(np.mean(chosen)) if chosen else None


def _level(threshold: float) -> int:
    return int(np.argmin(np.abs(IOU_THRESHOLDS - threshold)))
