"""Prototype network: instance-independent mask bases from P3 (paper eq. 9)."""
from __future__ import annotations

from torch import Tensor, nn


class ProtoNet(nn.Sequential):
    """Three 3x3, bilinear x2, 3x3 and 1x1, each with a ReLU. Positions in the sequence match the released names.

    Args:
        in_channels: channels of P3.
        width: channels of the hidden layers.
        num_prototypes: P.
    """

    def __init__(self, in_channels: int, width: int, num_prototypes: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
            nn.Conv2d(width, num_prototypes, 1), nn.ReLU(),
        )

    def forward(self, p3: Tensor) -> Tensor:
        """(B, F, H, W) -> (B, 2H, 2W, P), non-negative."""
        maps: Tensor = super().forward(p3)  # type: ignore[no-untyped-call]
        return maps.permute(0, 2, 3, 1)
