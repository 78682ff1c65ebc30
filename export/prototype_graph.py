"""The prototype graph: prototypes of a part of the frame."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from stmask_deploy.config import ModelConfig
from stmask_deploy.models.stmask import STMask

EXAMPLE_WINDOW = (8, 12)  # (height, width) of the traced example; the graph takes any size


class PrototypeGraph(nn.Module):
    """ProtoNet on a window of P3.

    ProtoNet is a fifth of the frame network's arithmetic, but prototypes are only read inside the boxes of objects. The
    result equals that on the whole map except within four P3 cells of window edges that are not the frame's own: three
    convolutions reach three cells, and the upsampling with the convolution after it one more.

    Args:
        model: the network.
    """

    def __init__(self, model: STMask) -> None:
        super().__init__()
        self.proto_net = model.proto_net

    def forward(self, p3: Tensor) -> Tensor:
        """(1, F, h, w) -> (2h, 2w, P), non-negative."""
        prototypes: Tensor = self.proto_net(p3)
        return prototypes[0]


def prototype_inputs(config: ModelConfig) -> list[Tensor]:
    """Seeded inputs of the prototype graph: a window of `EXAMPLE_WINDOW` cells."""
    generator = torch.Generator().manual_seed(0)
    return [torch.rand((1, config.fpn_width, *EXAMPLE_WINDOW), generator=generator)]
