"""Temporal fusion: how boxes and mask coefficients move from the previous frame to this one (paper section 3.2)."""
from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import correlation, roi_align

LEAKY_SLOPE = 0.1  # of the ReLU after the correlation


class TemporalNet(nn.Module):
    """Predicts box and coefficient deltas of objects from features around their previous boxes (paper figure 5).

    Args:
        feature_width: channels of the shared head map.
        patch_size: side of the correlation window, odd.
        roi_size: RoIAlign bins per side.
        widths: channels of the three convolutions.
        num_prototypes: P.
    """

    def __init__(self, feature_width: int, patch_size: int, roi_size: int, widths: Sequence[int],
                 num_prototypes: int) -> None:
        super().__init__()
        self.patch_size, self.roi_size = patch_size, roi_size
        self.conv1 = nn.Conv2d(patch_size**2 + 2 * feature_width, widths[0], 3, padding=1)
        self.conv2 = nn.Conv2d(widths[0], widths[1], 3, padding=1)
        self.conv3 = nn.Conv2d(widths[1], widths[2], 3, padding=1)
        self.fc = nn.Linear(widths[2], 4)
        self.fc_coeff = nn.Linear(widths[2], num_prototypes)

    def fuse(self, prev_fpn: Tensor, fpn: Tensor, prev_temporal: Tensor, temporal: Tensor) -> Tensor:
        """Correlation and both shared maps of B pairs of frames -> (B, d*d + 2*T, h, w)."""
        motion = F.leaky_relu(correlation(prev_fpn, fpn, self.patch_size), LEAKY_SLOPE)
        return F.relu(torch.cat([motion, prev_temporal, temporal], dim=1))

    def pool_boxes(self, features: Tensor, boxes: Tensor) -> Tensor:
        """RoIAlign of one pair's fused map (1, C, h, w) at (N, 4) boxes -> (N, C, roi_size, roi_size)."""
        height, width = features.shape[2:]
        limit = boxes.new_tensor([width, height])
        first, second = boxes[:, :2] * limit, boxes[:, 2:] * limit
        corners = torch.cat([torch.minimum(first, second), torch.maximum(first, second)], dim=1)
        corners = torch.minimum(corners.clamp(min=0), limit.repeat(2))
        pooled: Tensor = roi_align(features, corners, self.roi_size)
        return pooled

    def predict(self, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, roi_size, roi_size) -> box deltas (N, 4) and coefficient deltas (N, P)."""
        x = F.relu(self.conv1(pooled))
        x = F.relu(self.conv2(x))
        x = F.relu(self.conv3(x)).mean(dim=(2, 3))
        return self.fc(x), self.fc_coeff(x)

    def forward(self, prev_fpn: Tensor, fpn: Tensor, prev_temporal: Tensor, temporal: Tensor,
                boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Deltas of the objects of one pair of frames, from the fused maps pooled at their previous boxes.

        Args:
            prev_fpn, fpn: (1, F, h, w) pyramid maps of the previous and the current frame.
            prev_temporal, temporal: (1, T, h, w) shared head maps of the same level.
            boxes: (N, 4) xyxy, fractions of the padded frame, corners in any order; clipped to the frame. N may be 0.

        Returns:
            Box deltas (N, 4) and coefficient deltas (N, P).
        """
        return self.predict(self.pool_boxes(self.fuse(prev_fpn, fpn, prev_temporal, temporal), boxes))
