"""Feature pyramid network on C3 to C5, with extra levels below P5."""
from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class FPN(nn.Module):
    """Pyramid maps P3, P4, P5 and `num_downsamples` more, each with `width` channels.

    Args:
        in_channels: channels of C3, C4, C5. Parameters are stored from C5 to C3, as in the released checkpoints.
        width: channels of every level.
        num_downsamples: levels below P5, each from a 3x3 convolution of stride 2 without ReLU.
    """

    def __init__(self, in_channels: Sequence[int], width: int, num_downsamples: int) -> None:
        super().__init__()
        self.lat_layers = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in reversed(in_channels))
        self.pred_layers = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in in_channels)
        self.downsample_layers = nn.ModuleList(
            nn.Conv2d(width, width, 3, stride=2, padding=1) for _ in range(num_downsamples))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """[C3, C4, C5] -> [P3, P4, P5, P6, ...]."""
        levels: list[Tensor] = []
        top: Tensor | None = None
        for features, lateral, predict in zip(reversed(maps), self.lat_layers, self.pred_layers, strict=True):
            merged = lateral(features)
            if top is not None:
                merged = merged + F.interpolate(top, size=merged.shape[2:], mode="bilinear", align_corners=False)
            top = merged
            levels.insert(0, F.relu(predict(merged)))
        for layer in self.downsample_layers:
            levels.append(layer(levels[-1]))
        return levels
