"""Prediction layers of the head: one convolution per kernel shape (FCA), plain or calibrated to the boxes (FCB)."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import Calibration
from ..geometry import CENTER_VARIANCE, SIZE_VARIANCE
from ..ops import deform_conv2d

KernelShape = tuple[int, int]  # (height, width)


class SameConv(nn.Conv2d):
    """A convolution that keeps the map's size for any kernel; even kernels get more padding at the top and left."""

    def __init__(self, in_channels: int, out_channels: int, kernel: KernelShape) -> None:
        super().__init__(in_channels, out_channels, kernel, padding=(kernel[0] // 2, kernel[1] // 2))

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, O, H, W)."""
        out = super().forward(x)
        return out[:, :, :x.shape[2], :x.shape[3]] if 0 in (self.kernel_size[0] % 2, self.kernel_size[1] % 2) else out


class PlainPrediction(SameConv):
    """A prediction made at the anchor's own cell. Channels are (anchor scale, value)."""

    def forward(self, x: Tensor, deltas: Tensor) -> Tensor:  # type: ignore[override]
        """(B, C, H, W), and box deltas, which a plain layer ignores -> (B, S * O, H, W)."""
        return super().forward(x)


class CalibratedPrediction(nn.Module):
    """A prediction sampled at the regressed box (FCB, paper section 3.1.2): deformable convolution, ReLU, plain
    convolution. Anchors of several scales share the weights but have their own offsets.

    Args:
        in_channels: channels of the branch.
        out_channels: values per anchor.
        kernel: (height, width) of both convolutions.
        kind: source of the offsets, adaptive or aligned.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: KernelShape, kind: Calibration) -> None:
        super().__init__()
        self.kernel = kernel
        if kind is Calibration.ADAPTIVE:
            self.conv_offset = nn.Conv2d(4, 2 * kernel[0] * kernel[1], 1, bias=False)
        self.kind = kind
        self.conv_adaption = DeformableWeight(in_channels, in_channels, kernel)
        self.conv = SameConv(in_channels, out_channels, kernel)

    def offsets(self, deltas: Tensor) -> Tensor:
        """(B, 4, H, W) raw d_x, d_y, d_w, d_h -> (B, 2 * taps, H, W), (dy, dx) interleaved.

        Features follow the boxes, but their losses send no gradient to them, as in Guided Anchoring (Wang et al. 2019).
        """
        deltas = deltas.detach()
        if self.kind is Calibration.ADAPTIVE:
            out: Tensor = self.conv_offset(deltas)
            return out
        return aligned_offsets(deltas, self.kernel)

    def forward(self, x: Tensor, deltas: Tensor) -> Tensor:
        """(B, C, H, W) and (B, S * 4, H, W) -> (B, S * O, H, W)."""
        return torch.cat([self.conv(F.relu(self.conv_adaption(x, self.offsets(one))))
                          for one in deltas.split(4, dim=1)], dim=1)


class DeformableWeight(nn.Module):
    """Deformable convolution with given offsets, without bias or modulation."""

    def __init__(self, in_channels: int, out_channels: int, kernel: KernelShape) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *kernel))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        """(B, C, H, W) and (B, 2 * taps, H, W) -> (B, O, H, W)."""
        kernel_h, kernel_w = self.weight.shape[2:]
        out: Tensor = deform_conv2d(x, self.weight, offset, None, None, [1, 1], [kernel_h // 2, kernel_w // 2])
        return out


def aligned_offsets(deltas: Tensor, kernel: KernelShape) -> Tensor:
    """Closed-form offsets that move a kernel's taps onto the regressed box (paper eq. 6-8).

    Args:
        deltas: (B, 4, H, W) raw d_x, d_y, d_w, d_h.
        kernel: (height, width).

    Returns:
        (B, 2 * taps, H, W), (dy, dx) interleaved per tap, in cells.
    """
    kernel_h, kernel_w = kernel
    taps = torch.tensor([(row, column) for row in range(-(kernel_h // 2), kernel_h - kernel_h // 2)
                         for column in range(-(kernel_w // 2), kernel_w - kernel_w // 2)],
                        dtype=deltas.dtype, device=deltas.device)  # (taps, 2) r_y, r_x
    sides = deltas.new_tensor([kernel_h, kernel_w]).view(1, 1, 2, 1, 1)
    shift = CENTER_VARIANCE * sides * deltas[:, None, :2].flip(2)  # (B, 1, 2, H, W), y first
    growth = torch.exp(SIZE_VARIANCE * deltas[:, None, 2:].flip(2)) - 1
    return (shift + growth * taps.view(1, -1, 2, 1, 1)).flatten(1, 2)
