"""One convolution for the boxes and the centerness of a kernel, which read the same map."""
from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from stmask_deploy.models.calibration import SameConv
from stmask_deploy.models.head import PredictionHead
from stmask_deploy.models.stmask import STMask


def join_boxes(model: STMask) -> STMask:
    """An equivalent copy of `model` in which the convolutions for boxes and centerness are the same.

    Either has so few channels that both together take no longer than one. They have the name of the second.
    """
    joined = copy.deepcopy(model)
    for head in joined.modules():
        if isinstance(head, PredictionHead):
            for index, (boxes, centerness) in enumerate(zip(head.bbox_layer, head.centerness_layer, strict=True)):
                assert isinstance(boxes, SameConv) and isinstance(centerness, SameConv)
                head.bbox_layer[index], head.centerness_layer[index] = _joined(boxes, centerness)
    return joined


class JoinedConv(SameConv):
    """Some output channels of a convolution; a graph contains it once for all modules that share its weights.

    Args:
        weight: (O, C, kh, kw).
        bias: (O,).
        channels: which of the O channels to return.
    """

    def __init__(self, weight: nn.Parameter, bias: nn.Parameter, channels: slice) -> None:
        out_channels, in_channels, height, width = weight.shape
        super().__init__(in_channels, out_channels, (height, width))
        self.weight, self.bias, self.channels = weight, bias, channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, number of the channels, H, W)."""
        return super().forward(x)[:, self.channels]


def _joined(first: SameConv, second: SameConv) -> tuple[JoinedConv, JoinedConv]:
    assert first.bias is not None and second.bias is not None
    weight = nn.Parameter(torch.cat([first.weight, second.weight]))
    bias = nn.Parameter(torch.cat([first.bias, second.bias]))
    number = first.out_channels
    return JoinedConv(weight, bias, slice(0, number)), JoinedConv(weight, bias, slice(number, None))
