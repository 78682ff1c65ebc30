"""Pyramid: levels, storage order, top-down path, which of them pass through a ReLU."""
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stmask_deploy.models.fpn import FPN

SHAPES = [(2, 12, 20), (3, 6, 10), (4, 3, 5)]  # C3 to C5 of a padded frame of 96x160


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("num_downsamples, sizes", [
    (0, [(12, 20), (6, 10), (3, 5)]), (2, [(12, 20), (6, 10), (3, 5), (2, 3), (1, 2)]),
])
def test_levels(num_downsamples: int, sizes: list[tuple[int, int]]) -> None:
    fpn = FPN([2, 3, 4], 6, num_downsamples)
    levels = fpn([randn(2, *shape) for shape in SHAPES])
    assert [tuple(level.shape) for level in levels] == [(2, 6, *size) for size in sizes]
    assert [layer.in_channels for layer in fpn.lat_layers] == [4, 3, 2]  # stored from C5 to C3


def test_values() -> None:
    # Written out level by level, as the paper's figure 2 and design tell it.
    fpn = FPN([2, 3, 4], 5, 2)
    for layer, bias in zip(fpn.downsample_layers, (-1e2, -1e4), strict=True):
        torch.nn.init.constant_(layer.bias, bias)  # nothing but this can make every value below P5 negative
    c3, c4, c5 = (randn(1, *shape) for shape in SHAPES)
    lat5, lat4, lat3 = fpn.lat_layers
    pred5, pred4, pred3 = fpn.pred_layers
    m5 = lat5(c5)
    m4 = lat4(c4) + F.interpolate(m5, size=(6, 10), mode="bilinear", align_corners=False)
    m3 = lat3(c3) + F.interpolate(m4, size=(12, 20), mode="bilinear", align_corners=False)
    p5 = pred5(m5).relu()
    p6 = fpn.downsample_layers[0](p5)
    want = [pred3(m3).relu(), pred4(m4).relu(), p5, p6, fpn.downsample_layers[1](p6)]
    levels = [level.detach() for level in fpn([c3, c4, c5])]
    for have, value in zip(levels, want, strict=True):
        torch.testing.assert_close(have, value)
    assert all(float(level.min()) >= 0 for level in levels[:3])
    assert all(float(level.max()) < 0 for level in levels[3:])  # no ReLU below P5
