"""Losses on masks assembled from prototypes and coefficients."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

MARGIN = 2.0  # cells around the box in which the mask is trained: masks are cropped one cell outside *predicted* boxes


def mask_loss(prototypes: Tensor, coeffs: Tensor, masks: Tensor, boxes: Tensor) -> Tensor:
    """(n,) binary cross-entropy of sigmoid(prototypes @ tanh(coeffs)) (eq. 9), mean over the cells in and near the box.

    Args:
        prototypes: (Hm, Wm, P) of the frame.
        coeffs: (n, P) before tanh.
        masks: (n, Hm, Wm) ground-truth coverage of each cell, in [0, 1].
        boxes: (n, 4) true boxes, xyxy, fractions of the padded frame.
    """
    with torch.autocast(prototypes.device.type, enabled=False):  # even if the network runs in 16 bits
        logits = torch.einsum("hwp,np->nhw", prototypes, coeffs.tanh())
    errors = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    inside = _inside(boxes, (masks.shape[1], masks.shape[2]))
    return (errors * inside).sum(dim=(1, 2)) / inside.sum(dim=(1, 2)).clamp(min=1)


def _inside(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """(n, 4) -> (n, Hm, Wm) 1 for cells in the box grown by MARGIN."""
    def along(start: Tensor, end: Tensor, count: int) -> Tensor:
        cells = torch.arange(count, device=boxes.device)
        return (cells >= start[:, None] * count - MARGIN) & (cells < end[:, None] * count + MARGIN)

    rows, columns = along(boxes[:, 1], boxes[:, 3], size[0]), along(boxes[:, 0], boxes[:, 2], size[1])
    return (rows[:, :, None] & columns[:, None, :]).float()
