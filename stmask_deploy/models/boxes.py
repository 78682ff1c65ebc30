"""Box decoding in PyTorch, for graphs and losses; `stmask_deploy.geometry.decode_boxes` is the NumPy counterpart."""
from __future__ import annotations

import torch
from torch import Tensor

from ..geometry import CENTER_VARIANCE, SIZE_VARIANCE


def decode_boxes(deltas: Tensor, anchors: Tensor) -> Tensor:
    """Apply box deltas to anchors (paper eq. 2).

    Args:
        deltas: (..., 4) d_x, d_y, d_w, d_h.
        anchors: (..., 4) cxcywh, any unit.

    Returns:
        (..., 4) xyxy in the anchors' unit.
    """
    centers = anchors[..., :2] + CENTER_VARIANCE * deltas[..., :2] * anchors[..., 2:]
    half = anchors[..., 2:] * torch.exp(SIZE_VARIANCE * deltas[..., 2:]) / 2
    return torch.cat([centers - half, centers + half], dim=-1)
