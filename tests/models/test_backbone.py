"""Backbone: strides, widths, where deformable convolutions sit, and what they compute."""
from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stmask_deploy.models.backbone import Bottleneck, ModulatedDeformConv, ResNet


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_stages() -> None:
    net = ResNet(4, depths=(1, 2, 1, 1), widths=(2, 3, 4, 5), expansion=3, deformable_blocks=()).eval()
    with torch.no_grad():
        maps = net(randn(2, 3, 64, 96))
    assert [tuple(one.shape) for one in maps] == [(2, 6, 16, 24), (2, 9, 8, 12), (2, 12, 4, 6), (2, 15, 2, 3)]
    assert net.out_channels == [6, 9, 12, 15]
    assert all(float(one.min()) == 0 for one in maps)  # after a ReLU


def test_stride_sits_in_the_3x3() -> None:
    block = Bottleneck(4, 2, 2, stride=2, deformable=False)
    assert (block.conv1.stride, block.conv2.stride, block.conv3.stride) == ((1, 1), (2, 2), (1, 1))


def test_shortcut() -> None:
    assert Bottleneck(4, 2, 2, stride=1, deformable=False).downsample is None
    assert Bottleneck(4, 2, 2, stride=2, deformable=False).downsample is not None
    assert Bottleneck(5, 2, 2, stride=1, deformable=False).downsample is not None
    block = Bottleneck(4, 2, 2, stride=1, deformable=False).eval()
    nn.init.zeros_(block.bn3.weight)
    x = randn(1, 4, 5, 5)
    assert torch.equal(block(x), x.relu())  # nothing but the shortcut is left


def test_deformable_blocks() -> None:
    net = ResNet(4, (2, 1, 3), (2, 2, 2), 2, deformable_blocks={(0, 1), (2, 0), (2, 2)})
    found = {(stage, block) for stage, blocks in enumerate(net.layers) for block, one in enumerate(blocks)
             if isinstance(one.conv2, ModulatedDeformConv)}
    assert found == {(0, 1), (2, 0), (2, 2)}
    with torch.no_grad():
        assert [tuple(one.shape[2:]) for one in net.eval()(randn(1, 3, 32, 32))] == [(8, 8), (4, 4), (2, 2)]


@pytest.mark.parametrize("stride", [1, 2])
def test_fresh_deformable_convolution_is_half_an_ordinary_one(stride: int) -> None:
    layer = ModulatedDeformConv(3, 4, stride)
    x = randn(2, 3, 7, 9)
    want = 0.5 * F.conv2d(x, layer.weight, None, stride, 1)  # sigmoid(0) modulates by one half
    torch.testing.assert_close(layer(x), want, rtol=0, atol=1e-5)


def test_channels_of_offsets_and_modulation() -> None:
    # 18 offsets, (dy, dx) interleaved per tap, then 9 modulation logits: here of a constant input and no weights.
    layer = ModulatedDeformConv(1, 1, 1)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    with torch.no_grad():
        layer.weight[0, 0, 1, 1] = 1  # the centre tap, number 4
        layer.conv_offset_mask.bias[2 * 4] = 1.0  # dy
        layer.conv_offset_mask.bias[2 * 4 + 1] = -2.0  # dx
        layer.conv_offset_mask.bias[18 + 4] = 1.5
    x = randn(1, 1, 5, 6)
    want = torch.zeros_like(x)
    want[:, :, :-1, 2:] = x[:, :, 1:, :-2]  # one row down, two columns left
    torch.testing.assert_close(layer(x), want * torch.tensor(1.5).sigmoid(), rtol=0, atol=1e-5)
