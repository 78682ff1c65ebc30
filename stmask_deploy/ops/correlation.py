"""Local correlation of two feature maps (paper section 3.2; FlowNet's correlation layer)."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .library import composite_operator


@composite_operator("correlation(Tensor prev, Tensor cur, int patch_size) -> Tensor")
def correlation(prev: Tensor, cur: Tensor, patch_size: int) -> Tensor:
    """Mean over channels of `prev` at a cell times `cur` at the cells around it.

    Args:
        prev: (B, C, H, W) map of the previous frame.
        cur: (B, C, H, W) map of the current frame.
        patch_size: side d of the window, odd.

    Returns:
        (B, d*d, H, W); channel i*d + j holds the displacement (i - d//2, j - d//2) in (rows, columns); cells of `cur`
        outside the map count as zeros.
    """
    height, width = prev.shape[2:]
    radius = patch_size // 2
    padded = F.pad(cur, [radius] * 4)
    return torch.stack([(prev * padded[:, :, i:i + height, j:j + width]).mean(dim=1)
                        for i in range(patch_size) for j in range(patch_size)], dim=1)
