"""Losses for boxes and their centerness."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import CENTER_VARIANCE, SIZE_VARIANCE
from ..models.boxes import decode_boxes

SMALLEST_SIDE = 1e-4  # of a box, as a fraction of the frame


def encode_boxes(boxes: Tensor, anchors: Tensor) -> Tensor:
    """The inverse of `decode_boxes`: (n, 4) xyxy and (n, 4) cxcywh anchors -> (n, 4) d_x, d_y, d_w, d_h (eq. 1)."""
    centers, sizes = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).clamp(min=SMALLEST_SIDE)
    return torch.cat([(centers - anchors[:, :2]) / anchors[:, 2:] / CENTER_VARIANCE,
                      (sizes / anchors[:, 2:]).log() / SIZE_VARIANCE], dim=1)


def delta_loss(deltas: Tensor, boxes: Tensor, anchors: Tensor) -> Tensor:
    """(n,) smooth L1 of the deltas, summed over the four components."""
    return F.smooth_l1_loss(deltas, encode_boxes(boxes, anchors), reduction="none").sum(dim=1)


def overlap_loss(deltas: Tensor, boxes: Tensor, anchors: Tensor) -> Tensor:
    """(n,) 1 - generalised IoU (Rezatofighi et al. 2019) of decoded and true boxes, in [0, 2]."""
    found = decode_boxes(deltas, anchors)
    inter = (torch.minimum(found[:, 2:], boxes[:, 2:]) - torch.maximum(found[:, :2], boxes[:, :2])).clamp(min=0)
    hull = torch.maximum(found[:, 2:], boxes[:, 2:]) - torch.minimum(found[:, :2], boxes[:, :2])
    overlap, around = inter.prod(dim=1), hull.prod(dim=1).clamp(min=SMALLEST_SIDE**2)
    union = (found[:, 2:] - found[:, :2]).prod(dim=1) + (boxes[:, 2:] - boxes[:, :2]).prod(dim=1) - overlap
    return 1 - overlap / union.clamp(min=SMALLEST_SIDE**2) + (around - union) / around


def centerness_targets(boxes: Tensor, anchors: Tensor) -> Tensor:
    """(n,) FCOS centerness of the anchors' centres in the boxes (Tian et al. 2019, eq. 3), in [0, 1].

    It is 0 for an anchor whose centre lies outside its box.
    """
    before, after = anchors[:, :2] - boxes[:, :2], boxes[:, 2:] - anchors[:, :2]  # (n, 2) to the four sides
    near, far = torch.minimum(before, after).clamp(min=0), torch.maximum(before, after).clamp(min=SMALLEST_SIDE)
    return (near / far).prod(dim=1).sqrt()
