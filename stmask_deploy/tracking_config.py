"""`TrackingConfig`: how a network's detections are assigned identities unless a run says otherwise."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .errors import InputError

# The settings that each tracker reads, with their defaults: those of the released code (0.5 + 0.3 + 0.6), and those of
# the paper's equations 15 and 16, which have neither embedding momentum nor a limit on cover.
TRACKERS: Mapping[str, Mapping[str, float]] = {
    "released": {"new_object_score": 1.4},
    "paper": {"alpha": 1.0, "beta": 1.0, "epsilon": 0.7, "embedding_momentum": 0.0, "max_cover": 1.0},
    "frame": {"new_object_score": 1.4},
}
SETTING_RANGES: Mapping[str, tuple[float, float]] = {
    "alpha": (0, 1000), "beta": (0, 1000), "epsilon": (-1000, 1000), "embedding_momentum": (0, 1),
    "max_cover": (0, 1), "new_object_score": (-1000, 1000)}


@dataclass(frozen=True)
class TrackingConfig:
    """The tracker that suits a network, and its settings, which depend on how training spread the embeddings.

    None stands for the tracker's default. The frame tracker is for networks without temporal fusion, the others for
    those with it; `ModelConfig.own_tracking` is what a run uses.

    Raises:
        InputError: the tracker is unknown, or a setting is out of range or not read by the tracker.
    """

    tracker: str = "released"  # released | paper | frame, see docs/architecture.md
    alpha: float | None = None  # paper: weight of the embeddings' cosine (eq. 15)
    beta: float | None = None  # paper: weight of the mask IoU (eq. 15)
    epsilon: float | None = None  # paper: score that a match with a known object must exceed (eq. 16)
    embedding_momentum: float | None = None  # paper: weight of the known embedding, times 1 - score of the new one
    max_cover: float | None = None  # paper: fraction of a new object's mask that a better detection's may cover
    new_object_score: float | None = None  # released, frame: pair score that a match with a known object must exceed

    def __post_init__(self) -> None:
        if self.tracker not in TRACKERS:
            raise InputError(f"tracker {self.tracker!r} is not known; known: {', '.join(TRACKERS)}")
        for name, (low, high) in SETTING_RANGES.items():
            value = getattr(self, name)
            if value is None:
                continue
            if not low <= value <= high:  # never true of NaN
                raise InputError(f"{name} must be in {low}..{high}, got {value}")
            if name not in TRACKERS[self.tracker]:
                readers = [tracker for tracker, settings in TRACKERS.items() if name in settings]
                raise InputError(f"{name} is not read by the {self.tracker} tracker, only by: {', '.join(readers)}")

    @property
    def settings(self) -> dict[str, float]:
        """Every setting that the tracker reads, with its value."""
        given = {name: getattr(self, name) for name in TRACKERS[self.tracker]}
        return {name: TRACKERS[self.tracker][name] if value is None else float(value) for name, value in given.items()}

    @classmethod
    def parse(cls, text: str) -> TrackingConfig:
        """Parse a text such as `paper,alpha=4,epsilon=1.6`.

        Raises:
            InputError: the text is malformed, or a value is not allowed.
        """
        tracker, *settings = (part.strip() for part in text.split(","))
        values: dict[str, float] = {}
        for setting in settings:
            name, _, value = (part.strip() for part in setting.partition("="))
            if name not in SETTING_RANGES or name in values:
                raise InputError(f"{text!r}: expected TRACKER,SETTING=NUMBER,... each setting once, found {setting!r}; "
                                 f"settings: {', '.join(SETTING_RANGES)}")
            try:
                values[name] = float(value)
            except ValueError as error:
                raise InputError(f"{text!r}: {name} must be a number, found {value!r}") from error
        return cls(tracker, **values)

    def __str__(self) -> str:
        """The form that `parse` reads, with every setting named."""
        settings = (f"{name}={repr(value).removesuffix('.0')}" for name, value in self.settings.items())
        return ",".join([self.tracker, *settings])
