"""Matching of anchors to objects."""
from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .targets import FrameTargets

BACKGROUND, NEUTRAL = -1, -2  # in `AnchorMatch.objects`
IGNORED_SHARE = 0.7  # a background anchor with more than this fraction of its area in an ignored region is neutral


@dataclass(frozen=True)
class AnchorMatch:
    """The match of each anchor of one frame."""

    objects: Tensor  # (N,) int64 row of the targets, BACKGROUND or NEUTRAL
    overlaps: Tensor  # (N,) IoU with the matched or best object, 0 without objects

    @property
    def positive(self) -> Tensor:
        """(p,) indices of the anchors that are matched to an object."""
        return (self.objects >= 0).nonzero().squeeze(1)


def match_anchors(anchors: Tensor, targets: FrameTargets, positive_iou: float, negative_iou: float) -> AnchorMatch:
    """Match each anchor to the object it overlaps most.

    An anchor is positive from `positive_iou` on, background below `negative_iou`, and neutral in between, where it is
    trained as neither. The best anchor of every object is always positive; if two objects share it, the later one wins.

    Args:
        anchors: (N, 4) xyxy, fractions of the padded frame.
        targets: of the frame.
        positive_iou, negative_iou: in [0, 1], the first not less than the second.
    """
    count = len(anchors)
    if not len(targets):
        objects = torch.full((count,), BACKGROUND, dtype=torch.int64, device=anchors.device)
        overlaps = anchors.new_zeros(count)
    else:
        iou = pairwise_iou(anchors, targets.boxes)
        overlaps, objects = iou.max(dim=1)
        objects = torch.where(overlaps < positive_iou, NEUTRAL, objects)
        objects = torch.where(overlaps < negative_iou, BACKGROUND, objects)
    if len(targets.ignored):
        covered = _intersections(anchors, targets.ignored).amax(dim=1) > IGNORED_SHARE * _areas(anchors)
        objects = torch.where(covered & (objects == BACKGROUND), NEUTRAL, objects)
    if len(targets):
        best_anchors = iou.argmax(dim=0)
        for row, anchor in enumerate(best_anchors.tolist()):
            objects[anchor], overlaps[anchor] = row, iou[anchor, row]
    return AnchorMatch(objects, overlaps)


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """(n, 4) and (m, 4) xyxy -> (n, m) intersection over union."""
    inter = _intersections(a, b)
    return inter / (_areas(a)[:, None] + _areas(b)[None, :] - inter).clamp(min=1e-12)


def _intersections(a: Tensor, b: Tensor) -> Tensor:
    sides = torch.minimum(a[:, None, 2:], b[None, :, 2:]) - torch.maximum(a[:, None, :2], b[None, :, :2])
    return sides.clamp(min=0).prod(dim=-1)


def _areas(boxes: Tensor) -> Tensor:
    return (boxes[:, 2:] - boxes[:, :2]).prod(dim=-1)
