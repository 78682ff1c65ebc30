from __future__ import annotations

import torch
from torch import nn

from stmask_deploy.export.folding import fold_deformable
from stmask_deploy.models.backbone import Bottleneck, ModulatedDeformConv
from stmask_deploy.models.checkpoint import Checkpoint


def deformable_blocks(model: nn.Module) -> list[Bottleneck]:
    return [block for block in model.modules()
            if isinstance(block, Bottleneck) and isinstance(block.conv2, ModulatedDeformConv)]


def test_the_folded_convolution_gives_what_both_gave(tiny: Checkpoint) -> None:
    model = tiny.build()
    blocks = deformable_blocks(model)
    assert len(blocks) == 2
    generator = torch.Generator().manual_seed(0)
    for block in blocks:  # as after training: each value counts
        assert isinstance(block.conv2, ModulatedDeformConv) and isinstance(block.bn2, nn.BatchNorm2d)
        for value in (block.conv2.bias, block.bn2.weight, block.bn2.bias, block.bn2.running_mean):
            value.data = torch.randn(value.shape, generator=generator)  # type: ignore[union-attr]
        block.bn2.running_var = torch.rand(8, generator=generator) + 0.1
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folded = fold_deformable(model)
    x = torch.randn((1, 8, 12, 10), generator=generator)
    for old, new in zip(blocks, deformable_blocks(folded), strict=True):
        assert isinstance(new.bn2, nn.Identity)
        with torch.no_grad():
            torch.testing.assert_close(new.conv2(x), old.bn2(old.conv2(x)), rtol=1e-5, atol=1e-5)
    assert set(folded.state_dict()) == {name for name in before if ".bn2." not in name or
                                        not name.startswith(("backbone.layers.1.0.", "backbone.layers.2.1."))}
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())  # it is a copy
