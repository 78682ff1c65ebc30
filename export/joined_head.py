"""A head with one convolution for the boxes and the centerness of a kernel, which read the same map."""
from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from stmask_deploy.models.calibration import SameConv
from stmask_deploy.models.head import PredictionHead
from stmask_deploy.models.stmask import STMask


def join_boxes(model: STMask) -> STMask:
    """An equivalent copy of `model` whose head computes boxes and centerness together."""
    joined = copy.deepcopy(model)
    [head] = joined.prediction_layers
    assert isinstance(head, PredictionHead)
    joined.prediction_layers = nn.ModuleList([JoinedHead(head)])
    return joined


class JoinedHead(PredictionHead):
    """A head that shares the modules of `head`, but whose `centerness_layer` computes the boxes too.

    Either has so few channels that both together take no longer than one.
    """

    def __init__(self, head: PredictionHead) -> None:
        nn.Module.__init__(self)
        vars(self).update(vars(head), _modules=dict(head._modules))
        self.centerness_layer = nn.ModuleList(map(_joined, head.bbox_layer, head.centerness_layer))
        del self.bbox_layer

    def box_maps(self, boxes: Tensor) -> list[Tensor]:
        """See `PredictionHead.box_maps`."""
        return [layer(boxes) for layer in self.centerness_layer]


@torch.no_grad()
def _joined(first: nn.Module, second: nn.Module) -> SameConv:
    """A convolution with the output channels of both."""
    assert isinstance(first, SameConv) and isinstance(second, SameConv)
    assert first.bias is not None and second.bias is not None
    height, width = first.weight.shape[2:]
    joined = SameConv(first.in_channels, first.out_channels + second.out_channels, (height, width)).to(first.weight)
    joined.load_state_dict({"weight": torch.cat([first.weight, second.weight]),
                            "bias": torch.cat([first.bias, second.bias])})
    return joined
