"""Bottleneck ResNet with optional modulated deformable (DCNv2) 3x3 convolutions."""
from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import deform_conv2d


class ModulatedDeformConv(nn.Module):
    """DCNv2: a 3x3 convolution whose sampling offsets and modulation are predicted by a second 3x3 convolution."""

    TAPS = 9

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.conv_offset_mask = nn.Conv2d(in_channels, 3 * self.TAPS, 3, stride=stride, padding=1)
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        # As in the DCNv2 paper, training starts as an ordinary convolution at half strength.
        nn.init.zeros_(self.conv_offset_mask.weight)
        assert self.conv_offset_mask.bias is not None
        nn.init.zeros_(self.conv_offset_mask.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, O, H / stride, W / stride)."""
        found = self.conv_offset_mask(x)  # sliced, since a Split costs more on GPUs: runtime.onnxruntime_providers
        offset, mask = found[:, :2 * self.TAPS], found[:, 2 * self.TAPS:].sigmoid()
        out: Tensor = deform_conv2d(x, self.weight, offset, mask, self.bias, [self.stride] * 2, [1, 1])
        return out


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride) and 1x1 convolutions, and a shortcut."""

    def __init__(self, in_channels: int, width: int, expansion: int, stride: int, deformable: bool) -> None:
        super().__init__()
        out_channels = width * expansion
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2: nn.Module = (ModulatedDeformConv(width, width, stride) if deformable
                                 else nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False))
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
                                            nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, width * expansion, H / stride, W / stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)) + shortcut)


class ResNet(nn.Module):
    """Stages C2, C3, C4, C5 (strides 4, 8, 16, 32).

    Args:
        stem_width: channels of the 7x7 stem.
        depths: number of blocks in each stage.
        widths: channels inside the blocks of each stage.
        expansion: factor from a block's width to its output channels.
        deformable_blocks: (stage, block) pairs whose 3x3 convolution is deformable.
    """

    def __init__(self, stem_width: int, depths: Sequence[int], widths: Sequence[int], expansion: int,
                 deformable_blocks: Collection[tuple[int, int]]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem_width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(stem_width)
        self.layers = nn.ModuleList()
        self.out_channels: list[int] = []
        channels = stem_width
        for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            blocks = []
            for block in range(depth):
                stride = 2 if block == 0 and stage > 0 else 1
                blocks.append(Bottleneck(channels, width, expansion, stride, (stage, block) in deformable_blocks))
                channels = width * expansion
            self.layers.append(nn.Sequential(*blocks))
            self.out_channels.append(channels)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised RGB -> one map per stage."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        maps = []
        for stage in self.layers:
            x = stage(x)
            maps.append(x)
        return maps
