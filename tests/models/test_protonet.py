"""Prototypes: twice the size of P3, last axis prototypes, never negative."""
from __future__ import annotations

import torch
import torch.nn.functional as F

from stmask_deploy.models.protonet import ProtoNet


def test_prototypes() -> None:
    net = ProtoNet(6, 5, 4)
    x = torch.randn(2, 6, 12, 20, generator=torch.Generator().manual_seed(0))
    out = net(x)
    assert out.shape == (2, 24, 40, 4)
    assert float(out.detach().min()) == 0
    assert [name for name, _ in net.named_parameters() if name.endswith("weight")] == [
        "0.weight", "2.weight", "4.weight", "8.weight", "10.weight"]
    y = net[4](net[2](net[0](x).relu()).relu()).relu()
    y = F.interpolate(y, scale_factor=2, mode="bilinear", align_corners=False)
    y = net[10](net[8](y).relu()).relu()
    torch.testing.assert_close(out, y.permute(0, 2, 3, 1))
