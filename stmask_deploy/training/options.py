"""`TrainingOptions`: every hyperparameter of a training run."""
from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InputError
from ..plain_values import is_number, known_values

OPTIMIZERS = ("adamw", "sgd")
DECAYS = ("cosine", "steps")
PRECISIONS = ("f32", "bf16")
WHOLE = ("iterations", "pairs_per_batch", "max_gap", "max_shift_gap", "validate_every", "save_every", "seed")  # ints

RANGES = {  # both ends are allowed
    "iterations": (1, 10**9), "pairs_per_batch": (1, 4096), "learning_rate": (1e-12, 100), "momentum": (0, 1),
    "weight_decay": (0, 100), "warmup": (0, 1), "step_factor": (0, 1), "clip_norm": (1e-6, 1e6), "ema_decay": (0, 1),
    "max_gap": (1, 10_000), "max_shift_gap": (1, 10_000), "copy_paste": (0, 1), "positive_iou": (0, 1),
    "negative_iou": (0, 1), "box_jitter": (0, 1), "validate_every": (1, 10**9), "save_every": (1, 10**9),
    "seed": (0, 2**31)}


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses; those that YOLACT has use its values. 0 disables a loss."""

    classes: float = 1.0
    boxes: float = 1.5  # smooth L1 of the deltas
    overlap: float = 1.0  # 1 - generalised IoU
    centerness: float = 1.0
    masks: float = 6.125
    embeddings: float = 1.0
    box_shift: float = 1.5  # boxes in the second frame, smooth L1 and overlap together
    mask_shift: float = 6.125  # masks in the second frame


TEMPORAL_LOSSES = ("box_shift", "mask_shift")  # only of networks with TemporalNet


@dataclass(frozen=True)
class TrainingOptions:
    """Hyperparameters of training. The schedule counts iterations; a pair is two frames of one video.

    Raises:
        InputError: a value is out of range.
    """

    iterations: int = 160_000
    pairs_per_batch: int = 8  # per process
    optimizer: str = "sgd"  # sgd | adamw
    learning_rate: float = 1e-3
    momentum: float = 0.9  # for sgd
    weight_decay: float = 5e-4  # except biases and norms
    warmup: float = 0.01  # fraction of the iterations over which the rate rises linearly from near 0
    decay: str = "steps"  # steps | cosine
    steps: tuple[float, ...] = (0.41, 0.83)  # when the rate drops, as fractions (paper: 66k, 133k of 160k)
    step_factor: float = 0.1
    clip_norm: float = 10.0  # largest norm of all gradients together
    precision: str = "f32"  # f32 | bf16 (mixed)
    ema_decay: float = 0.999  # of the exponential moving average of the weights, which is evaluated and saved
    freeze_norms: bool | None = None  # freeze the batch norms; None: only if training starts from a checkpoint
    max_gap: int = 5  # largest distance in frames between the two of a pair
    max_shift_gap: int = 5  # the same for pairs that TemporalNet is trained on
    copy_paste: float = 0.0  # fraction of the pairs onto which objects of another video may be pasted
    positive_iou: float = 0.5
    negative_iou: float = 0.4
    box_jitter: float = 0.05  # boxes given to TemporalNet are moved by this fraction of their sides, like detected ones
    validate_every: int = 5000  # iterations; the end of training is always validated
    save_every: int = 500
    seed: int = 0
    weights: LossWeights = LossWeights()

    def __post_init__(self) -> None:
        for name, known in (("optimizer", OPTIMIZERS), ("decay", DECAYS), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise InputError(f"{name} {getattr(self, name)!r} is not known; known: {', '.join(known)}")
        for name, (low, high) in RANGES.items():
            value, is_whole = getattr(self, name), name in WHOLE
            if not (is_number(value, is_whole) and low <= value <= high):
                raise InputError(f"{name} must be a {'whole ' if is_whole else ''}number in {low}..{high}, "
                                 f"got {value!r}")
        if self.freeze_norms not in (None, False, True):
            raise InputError(f"freeze_norms must be true, false or null, got {self.freeze_norms!r}")
        if self.negative_iou > self.positive_iou:
            raise InputError(f"negative_iou ({self.negative_iou}) must not exceed positive_iou ({self.positive_iou})")
        if not isinstance(self.steps, tuple) or not all(map(is_number, self.steps)):
            raise InputError(f"steps must be a list of numbers, got {self.steps!r}")
        if any(not 0 < step <= 1 for step in self.steps) or list(self.steps) != sorted(self.steps):
            raise InputError(f"steps must be ascending fractions in (0, 1], got {self.steps}")
        for name, value in dataclasses.asdict(self.weights).items():
            if not (is_number(value) and 0 <= value <= 1e6):
                raise InputError(f"weights.{name} must be a number in 0..1e6, got {value!r}")

    def rate(self, iteration: int) -> float:
        """Learning rate at an iteration, as a factor of `learning_rate`."""
        rise = max(1, round(self.warmup * self.iterations))
        if iteration < rise:
            return (iteration + 1) / rise
        progress = (iteration - rise) / max(1, self.iterations - rise)
        if self.decay == "cosine":
            return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
        return float(self.step_factor ** sum(iteration >= step * self.iterations for step in self.steps))

    def to_dict(self) -> dict[str, Any]:
        """These options as plain JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingOptions:
        """The inverse of `to_dict`; missing keys take their defaults.

        Raises:
            InputError: a key is unknown or a value out of range.
        """
        known = known_values(cls, values, "training options")
        if "weights" in known:
            known["weights"] = LossWeights(**known_values(LossWeights, known["weights"], "training options: weights"))
        if isinstance(known.get("steps"), list):
            known["steps"] = tuple(known["steps"])
        return cls(**known)
