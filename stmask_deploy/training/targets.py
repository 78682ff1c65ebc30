"""What the losses compare a frame's predictions with."""
from __future__ import annotations

from dataclasses import dataclass, fields

from torch import Tensor


@dataclass(frozen=True)
class FrameTargets:
    """The annotated objects of one frame, g rows, in the frame of the network."""

    boxes: Tensor  # (g, 4) xyxy, fractions of the padded frame
    class_ids: Tensor  # (g,) int64, 1-based
    track_ids: Tensor  # (g,) int64, equal for the same object in both frames of a pair
    masks: Tensor  # (g, Hm, Wm) share of each prototype cell that the object covers, in [0, 1]
    ignored: Tensor  # (i, 4) xyxy of crowds and of objects too small to learn: nothing is asked of anchors in them

    def __len__(self) -> int:
        return len(self.boxes)

    def to(self, device: str) -> FrameTargets:
        """A copy on a device."""
        return FrameTargets(**{field.name: getattr(self, field.name).to(device, non_blocking=True)
                               for field in fields(self)})


@dataclass(frozen=True)
class PairBatch:
    """B pairs of frames of one video each."""

    first: Tensor  # (B, H, W, 3) uint8 BGR of the network's input size
    second: Tensor  # (B, H, W, 3)
    first_targets: tuple[FrameTargets, ...]  # B
    second_targets: tuple[FrameTargets, ...]  # B
    gaps: Tensor  # (B,) int64 frames from the first to the second, without sign

    def to(self, device: str) -> PairBatch:
        """A copy on a device."""
        return PairBatch(self.first.to(device, non_blocking=True), self.second.to(device, non_blocking=True),
                         tuple(one.to(device) for one in self.first_targets),
                         tuple(one.to(device) for one in self.second_targets), self.gaps.to(device, non_blocking=True))
