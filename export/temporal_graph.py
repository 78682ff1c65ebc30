"""The temporal graph: maps of two consecutive frames and the previous boxes in, changes of boxes and coefficients out.
"""
from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stmask_deploy.config import ModelConfig
from stmask_deploy.models.stmask import STMask
from stmask_deploy.models.temporal import TemporalNet

# The correlation and maps have 633 channels in total. ONNX Runtime's blocked convolutions do not support odd channel
# counts, and its fallback is slower; multiples of 16 fill the vectors of all kernels and suit the matrix units of GPUs.
CHANNEL_MULTIPLE = 16
EXAMPLE_BOXES = 3  # in the traced example; the graph takes any number


class TemporalGraph(nn.Module):
    """`TemporalNet` with correlation and RoI pooling; inputs and outputs as `bundle.TEMPORAL_INPUTS` / `_OUTPUTS`.

    Args:
        model: a network with a temporal network.
        channel_multiple: the first convolution's input is padded with zero channels to a multiple of this.
    """

    def __init__(self, model: STMask, channel_multiple: int = 1) -> None:
        super().__init__()
        self.extra = -model.TemporalNet.conv1.in_channels % channel_multiple
        self.net = _widened(model.TemporalNet, self.extra) if self.extra else model.TemporalNet

    def forward(self, prev_fpn: Tensor, fpn: Tensor, prev_temporal: Tensor, temporal: Tensor,
                boxes: Tensor) -> tuple[Tensor, Tensor]:
        """See `TemporalNet.forward`."""
        if self.extra:
            zeros = temporal.new_zeros((1, self.extra, *temporal.shape[2:]))
            temporal = torch.cat([temporal, zeros], dim=1)  # the network concatenates this map last
        box_deltas, coeff_deltas = self.net(prev_fpn, fpn, prev_temporal, temporal, boxes)
        return box_deltas, coeff_deltas


def _widened(net: TemporalNet, extra: int) -> TemporalNet:
    """A copy whose first convolution has `extra` more input channels, with zero weights."""
    wide = copy.deepcopy(net)
    with torch.no_grad():
        weight = F.pad(net.conv1.weight, (0, 0, 0, 0, 0, extra))
    wide.conv1.weight = nn.Parameter(weight, requires_grad=False)
    wide.conv1.in_channels += extra
    return wide


def example_inputs(config: ModelConfig) -> tuple[Tensor, ...]:
    """Seeded inputs of the temporal graph, in order: the maps and `EXAMPLE_BOXES` boxes."""
    if config.temporal is None:
        raise ValueError("the model has no temporal network")
    generator = torch.Generator().manual_seed(0)
    height, width = config.level_sizes[config.temporal.level]
    maps = [torch.rand((1, channels, height, width), generator=generator)
            for channels in (config.fpn_width, config.fpn_width, config.head_width, config.head_width)]
    corners = torch.rand((EXAMPLE_BOXES, 2), generator=generator) / 2
    return (*maps, torch.cat([corners, corners + 0.3], dim=1))
