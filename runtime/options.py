"""`RunOptions`: all settings that determine what is detected, tracked and shown."""
from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from numbers import Real
from typing import Any

from stmask_deploy.bundle import BundleDescription
from stmask_deploy.errors import InputError
from stmask_deploy.tracking_config import SETTING_RANGES, TRACKERS, TrackingConfig
from stmask_deploy.wording import shown

from .propagate import SCORE_DECAY
from .propagating_tracker import MAX_AGE_SHOWN
from .resolved_options import ResolvedOptions
from .tracker import SCORE_THRESHOLD

NMS_KINDS = ("cross-class", "per-class")
MEMORY_KINDS = ("exact", "bounded")
RETIRE_AFTER = 30  # key frames; default of `retire_after`, three times that of `max_age_shown`
_WHOLE = ("top_k", "max_detections", "max_age_shown", "retire_after", "detect_every")


@dataclass(frozen=True)
class RunOptions:
    """How a video is processed; the defaults are those of the released code. `resolve` decides what is None here.

    The tracker and its settings then default to those of the bundle's network, see `TrackingConfig`.

    Raises:
        InputError: a value is out of range, or belongs to another tracker than the one chosen.
    """

    # Anchors above this are candidates, and rows above it are shown; None: 0.05 or, if higher, the bundle's threshold
    score_threshold: float | None = None
    nms: str = "cross-class"  # cross-class | per-class
    nms_iou: float = 0.5
    top_k: int = 200  # rows that enter NMS, best first
    max_detections: int = 100  # rows that leave per-class NMS
    tracker: str | None = None  # released | paper | frame (no temporal fusion); None: the bundle's own tracker
    alpha: float | None = None  # paper tracker: weight of the embeddings' cosine (eq. 15)
    beta: float | None = None  # paper tracker: weight of the mask IoU (eq. 15)
    epsilon: float | None = None  # paper tracker: pair score that a match has to exceed (eq. 16)
    embedding_momentum: float | None = None  # paper tracker: share of the known embedding that is kept, times 1 - score
    max_cover: float | None = None  # paper tracker: share of a new object's mask that a better detection may cover
    new_object_score: float | None = None  # released and frame tracker: pair score that a match has to exceed
    score_decay: float | None = None  # 0.95; factor on the score for each key frame in which an object is not detected
    max_age_shown: int | None = None  # 10; key frames for which an object is shown without being detected
    memory: str | None = None  # exact | bounded; None: bounded for live sources or with `retire_after`, exact otherwise
    retire_after: int | None = None  # bounded memory: forget objects not detected in more than this many key frames
    detect_every: int = 1  # interval between key frames; in between, objects are only propagated

    def __post_init__(self) -> None:
        self._check_choices()
        self._check_ranges()
        if self.tracker is not None:  # otherwise checked by `resolve`
            TrackingConfig(self.tracker, **self._given_settings())
        if self.retire_after is not None and self.memory == "exact":
            raise InputError("retire_after forgets objects, which memory 'exact' never does: give only one of them")

    def _check_choices(self) -> None:
        choices = (("nms", NMS_KINDS), ("tracker", (None, *TRACKERS)), ("memory", (None, *MEMORY_KINDS)))
        for name, known in choices:
            value = getattr(self, name)
            if not isinstance(value, str | None) or value not in known:
                raise InputError(f"{name} {shown(value)} is not known; known: {', '.join(str(k) for k in known if k)}")

    def _check_ranges(self) -> None:
        ranges = {"score_threshold": (0, 1), "nms_iou": (0, 1), "top_k": (1, 100_000), "max_detections": (1, 100_000),
                  "score_decay": (0, 1), "max_age_shown": (0, 1_000_000), "retire_after": (1, 1_000_000),
                  "detect_every": (1, 1000), **SETTING_RANGES}
        for name, (low, high) in ranges.items():
            value = getattr(self, name)
            if value is None:
                continue
            if not _is_number(value):
                raise InputError(f"{name} must be a number, got {shown(value)}")
            if not low <= value <= high:  # never true of NaN
                raise InputError(f"{name} must be in {low}..{high}, got {shown(value)}")
            number = float(value)  # a NumPy number cannot be written as JSON
            if name in _WHOLE and not number.is_integer():
                raise InputError(f"{name} must be a whole number, got {shown(value)}")
            object.__setattr__(self, name, int(number) if name in _WHOLE else number)  # 200.0 is not an index or count

    def _given_settings(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in SETTING_RANGES if getattr(self, name) is not None}

    def _resolve_tracking(self, own: TrackingConfig) -> TrackingConfig:
        """The requested tracker and settings, completed with those of the network."""
        suited = own if self.tracker in (None, own.tracker) else TrackingConfig(self.tracker)
        try:
            return dataclasses.replace(suited, **self._given_settings())
        except InputError as error:  # a setting without its tracker
            raise InputError(f"{error}; {own.tracker} is this bundle's own tracker: name the other one too") from error

    def _resolve_propagation(self, tracker: str) -> tuple[float | None, int | None]:
        """The resolved `score_decay` and `max_age_shown`; None for the frame tracker, which does not propagate."""
        if tracker == "frame":
            given = [name for name in ("score_decay", "max_age_shown") if getattr(self, name) is not None]
            if given:
                raise InputError(f"{given[0]} is not read by the frame tracker, which propagates nothing")
            return None, None
        decay = SCORE_DECAY if self.score_decay is None else self.score_decay
        max_age = MAX_AGE_SHOWN if self.max_age_shown is None else self.max_age_shown
        if self.retire_after is not None and self.retire_after < max_age:
            raise InputError(f"retire_after ({self.retire_after}) must not be smaller than max_age_shown "
                             f"({max_age}): an object would be forgotten while it is shown")
        return decay, max_age

    def _resolve_memory(self, is_live: bool, max_age_shown: int | None) -> int | None:
        """The resolved `retire_after`; None for exact memory."""
        if self.retire_after is not None:
            return self.retire_after
        is_bounded = self.memory == "bounded" or (self.memory is None and is_live)
        return max(RETIRE_AFTER, max_age_shown or 0) if is_bounded else None

    def resolve(self, description: BundleDescription, is_live: bool) -> ResolvedOptions:
        """Decide every None, for one bundle and one kind of source.

        Raises:
            InputError: the bundle does not support the options, or they contradict each other.
        """
        lowest = description.candidate_threshold
        if self.score_threshold is not None and self.score_threshold < lowest:
            raise InputError(f"score threshold {self.score_threshold} is below the candidate threshold {lowest} of "
                             f"this bundle; take {lowest} or more, or export again with --candidate-threshold "
                             f"{self.score_threshold}")
        has_temporal = description.model.temporal is not None
        if not has_temporal and self.tracker not in (None, "frame"):
            raise InputError(f"tracker {self.tracker!r} needs a temporal graph and this bundle has none; "
                             "use the frame tracker")
        tracking = self._resolve_tracking(description.model.own_tracking)
        if tracking.tracker == "frame" and self.detect_every > 1:
            reason = "the frame tracker" if has_temporal else "this bundle, which has no temporal graph,"
            raise InputError(f"detect_every {self.detect_every} needs objects to be propagated between detections, "
                             f"which {reason} cannot do: leave it at 1")
        decay, max_age = self._resolve_propagation(tracking.tracker)
        threshold = max(SCORE_THRESHOLD, lowest) if self.score_threshold is None else self.score_threshold
        return ResolvedOptions(score_threshold=threshold, nms=self.nms, nms_iou=self.nms_iou, top_k=self.top_k,
                               max_detections=self.max_detections, tracking=tracking, score_decay=decay,
                               max_age_shown=max_age, retire_after=self._resolve_memory(is_live, max_age),
                               detect_every=self.detect_every)


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
