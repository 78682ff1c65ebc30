"""RoIAlign with adaptive sampling, for boxes in units of map cells."""
from __future__ import annotations

import torch
from torch import Tensor

from .library import composite_operator


@composite_operator("roi_align(Tensor features, Tensor boxes, int size) -> Tensor")
def roi_align(features: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Pool each box into `size` x `size` bins ("aligned": a cell's centre lies at its index plus one half).

    A bin averages ceil(box side / size) bilinear samples per axis. The samples form a grid, so pooling is a weight
    matrix over rows times the map times a weight matrix over columns.

    Args:
        features: (1, C, H, W).
        boxes: (N, 4) xyxy in cells, corners sorted.
        size: bins per side.

    Returns:
        (N, C, size, size).
    """
    height, width = features.shape[2:]
    rows = _bin_weights(boxes[:, 1], boxes[:, 3], size, height)  # (N, size, H)
    columns = _bin_weights(boxes[:, 0], boxes[:, 2], size, width)  # (N, size, W)
    # In two steps: for a product of three factors PyTorch would ask opt_einsum, if installed, for the best order, which
    # depends on the number of boxes in the example; an export must leave that number open.
    pooled = torch.einsum("nph,chw->npcw", rows, features[0])
    return torch.einsum("npcw,nqw->ncpq", pooled, columns)


def _bin_weights(start: Tensor, end: Tensor, size: int, length: int) -> Tensor:
    """(N, size, length) weight of each cell in each bin along one axis."""
    count = torch.ceil((end - start) / size)  # (N,) samples per bin; a box without extent has none and pools to zero
    most = -(-length // size) + 1  # no box needs more, because boxes lie inside the map
    index = torch.arange(most, device=start.device, dtype=start.dtype)
    bins = torch.arange(size, device=start.device, dtype=start.dtype)
    step = (end - start) / size
    within = (index + 0.5) / count.clamp(min=1)[:, None]  # (N, most) in bins
    points = (start - 0.5)[:, None, None] + step[:, None, None] * (bins[None, :, None] + within[:, None, :])
    used = (index < count[:, None])[:, None, :] & (points >= -1) & (points <= length)
    points = points.clamp(0, length - 1)  # (N, size, most)
    cells = torch.arange(length, device=start.device, dtype=start.dtype)
    weights = (1 - (points[..., None] - cells).abs()).clamp(min=0) * used[..., None]
    return weights.sum(dim=2) / count.clamp(min=1)[:, None, None]
