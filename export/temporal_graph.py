"""The temporal graph: the maps of two consecutive frames and the previous boxes in, their changes out."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from stmask_deploy.config import ModelConfig
from stmask_deploy.geometry import level_sizes
from stmask_deploy.models.stmask import STMask


class TemporalGraph(nn.Module):
    """`TemporalNet` with correlation and RoI pooling; inputs and outputs as `bundle.TEMPORAL_INPUTS` / `_OUTPUTS`."""

    def __init__(self, model: STMask) -> None:
        super().__init__()
        self.net = model.TemporalNet

    def forward(self, prev_fpn: Tensor, fpn: Tensor, prev_temporal: Tensor, temporal: Tensor,
                boxes: Tensor) -> tuple[Tensor, Tensor]:
        """See `TemporalNet.pool`; N may be 0."""
        box_deltas, coeff_deltas = self.net(prev_fpn, fpn, prev_temporal, temporal, boxes)
        return box_deltas, coeff_deltas


def example_inputs(config: ModelConfig, num_boxes: int = 3) -> tuple[Tensor, ...]:
    """Seeded inputs of the temporal graph, in order."""
    if config.temporal is None:
        raise ValueError("the model has no temporal network")
    generator = torch.Generator().manual_seed(0)
    height, width = level_sizes(config.padded_size, config.num_levels)[config.temporal.level]
    maps = [torch.rand((1, channels, height, width), generator=generator)
            for channels in (config.fpn_width, config.fpn_width, config.head_width, config.head_width)]
    corners = torch.rand((num_boxes, 2), generator=generator) / 2
    return (*maps, torch.cat([corners, corners + 0.3], dim=1))
