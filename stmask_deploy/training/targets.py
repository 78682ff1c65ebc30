"""Ground truth for the losses of a frame."""
from __future__ import annotations

from dataclasses import dataclass, fields

from torch import Tensor


@dataclass(frozen=True)
class FrameTargets:
    """The annotated objects of one frame as g rows, in the coordinates of the network's frame."""

    boxes: Tensor  # (g, 4) xyxy, fractions of the padded frame
    class_ids: Tensor  # (g,) int64, 1-based
    track_ids: Tensor  # (g,) int64, equal for the same object in both frames of a pair
    masks: Tensor  # (g, Hm, Wm) coverage of each prototype cell by the object, in [0, 1]
    ignored: Tensor  # (i, 4) xyxy of crowds and of objects too small to learn; background anchors in them are neutral

    def __len__(self) -> int:
        return len(self.boxes)

    def to(self, device: str) -> FrameTargets:
        """A copy on a device."""
        return FrameTargets(**{field.name: getattr(self, field.name).to(device, non_blocking=True)
                               for field in fields(self)})


@dataclass(frozen=True)
class PairBatch:
    """B pairs of frames, each from one video."""

    first: Tensor  # (B, H, W, 3) uint8 BGR of the network's input size
    second: Tensor  # (B, H, W, 3)
    first_targets: tuple[FrameTargets, ...]  # B
    second_targets: tuple[FrameTargets, ...]  # B
    gaps: Tensor  # (B,) int64 distance in frames between the two, unsigned

    def to(self, device: str) -> PairBatch:
        """A copy on a device."""
        return PairBatch(self.first.to(device, non_blocking=True), self.second.to(device, non_blocking=True),
                         tuple(one.to(device) for one in self.first_targets),
                         tuple(one.to(device) for one in self.second_targets), self.gaps.to(device, non_blocking=True))
