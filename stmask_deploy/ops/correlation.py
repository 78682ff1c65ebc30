"""Local correlation of two feature maps (paper section 3.2; FlowNet's correlation layer)."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .library import composite_operator


@composite_operator("correlation(Tensor prev, Tensor cur, int patch_size) -> Tensor")
def correlation(prev: Tensor, cur: Tensor, patch_size: int) -> Tensor:
    """Mean over channels of `prev` at a cell times `cur` at the surrounding cells.

    Args:
        prev: (B, C, H, W) map of the previous frame.
        cur: (B, C, H, W) map of the current frame.
        patch_size: side d of the window, odd.

    Returns:
        (B, d*d, H, W); channel i*d + j holds the displacement (i - d//2, j - d//2) in (rows, columns); cells of `cur`
        outside the map count as zeros.
    """
    batch, channels, height, width = prev.shape
    radius = patch_size // 2
    padded = F.pad(cur, [radius] * 4)
    # One matrix product of all pairs of cells, from which each cell gathers its window: a slightly different summation
    # order, but many times faster than d*d shifted products, both forwards and backwards.
    products = torch.bmm(prev.flatten(2).transpose(1, 2), padded.flatten(2))  # (B, H*W, padded cells)
    row_length = width + 2 * radius

    def steps(count: int) -> Tensor:
        return torch.arange(count, device=prev.device)

    corners = steps(height)[:, None] * row_length + steps(width)  # (H, W) first padded cell of each window
    window = steps(patch_size)[:, None] * row_length + steps(patch_size)  # (d, d)
    index = (corners.flatten()[:, None] + window.flatten()).expand(batch, -1, -1)  # (B, H*W, d*d)
    return products.gather(2, index).transpose(1, 2).reshape(batch, -1, height, width) / channels
