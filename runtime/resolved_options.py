"""`ResolvedOptions`: what a run with certain options does, for one bundle and one kind of source."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stmask_deploy.tracking_config import TrackingConfig


@dataclass(frozen=True)
class ResolvedOptions:
    """Options of a run with all decisions made, by `RunOptions.resolve`. Meanings and ranges are those of `RunOptions`.
    """

    score_threshold: float
    nms: str
    nms_iou: float
    top_k: int
    max_detections: int
    tracking: TrackingConfig
    score_decay: float | None  # None, like the next: the frame tracker, which propagates nothing
    max_age_shown: int | None
    retire_after: int | None  # None: exact memory
    detect_every: int

    @property
    def propagates(self) -> bool:
        """Whether known objects are propagated, so the temporal graph is needed."""
        return self.tracking.tracker != "frame"

    @property
    def memory(self) -> str:
        """exact | bounded."""
        return "exact" if self.retire_after is None else "bounded"

    @property
    def memory_note(self) -> str:
        """One line on how bounded memory differs from the released behaviour; empty for exact memory."""
        if self.retire_after is None:
            return ""
        what = "frames" if self.detect_every == 1 else "key frames"
        return (f"bounded memory: objects not detected for more than {self.retire_after} {what} are forgotten and get "
                "a new identity if they return; the released code keeps all (--memory exact)")

    def tracker_settings(self) -> dict[str, Any]:
        """Arguments of the chosen tracker, with ages in frames."""
        settings: dict[str, Any] = {**self.tracking.settings, "score_threshold": self.score_threshold,
                                    "retire_after": None}
        if self.retire_after is not None:
            settings["retire_after"] = self._last_age(self.retire_after)
        if self.max_age_shown is not None:
            settings["max_age_shown"] = self._last_age(self.max_age_shown)
        return settings

    def _last_age(self, missed: int) -> int:
        """The highest age in frames at which an object has missed at most `missed` detections.

        Key frames are 0, K, 2K and so on: an object of age a, last detected in one of them, has missed a // K.
        """
        return (missed + 1) * self.detect_every - 1

    def to_dict(self) -> dict[str, Any]:
        """The fields of `RunOptions` that matter, as plain JSON values."""
        values = {"score_threshold": self.score_threshold, "nms": self.nms, "nms_iou": self.nms_iou,
                  "top_k": self.top_k, "max_detections": self.max_detections, "tracker": self.tracking.tracker,
                  **self.tracking.settings, "score_decay": self.score_decay, "max_age_shown": self.max_age_shown,
                  "memory": self.memory, "retire_after": self.retire_after, "detect_every": self.detect_every}
        return {name: value for name, value in values.items() if value is not None}
