"""Deformable convolution, with modulation (DCNv2) or without (paper eq. 3)."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .library import composite_operator


@composite_operator(
    "deform_conv2d(Tensor x, Tensor weight, Tensor offset, Tensor? mask, Tensor? bias, int[2] stride, int[2] padding)"
    " -> Tensor"
)
def deform_conv2d(
    x: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor | None,
    stride: list[int], padding: list[int],
) -> Tensor:
    """Convolve `x` at sampling points shifted by `offset`.

    Sampling is bilinear with zeros beyond the border: `grid_sample` with zero padding and half-pixel centres. The
    output has the spatial size of `offset`, so that even kernels can be padded at the top and left only.

    Args:
        x: (B, C, H, W).
        weight: (O, C, kh, kw).
        offset: (B, 2*kh*kw, Ho, Wo), (dy, dx) interleaved per tap, in cells of `x`.
        mask: (B, kh*kw, Ho, Wo) factors on the samples, or None for all ones.
        bias: (O,) or None.
        stride: (vertical, horizontal).
        padding: (rows above, columns left of) the map.

    Returns:
        (B, O, Ho, Wo).
    """
    batch, channels, height, width = x.shape
    out_channels, _, kernel_h, kernel_w = weight.shape
    taps, out_h, out_w = kernel_h * kernel_w, offset.shape[2], offset.shape[3]
    # Sampling uses at least float32: with 16-bit coordinates the samples would move by whole cells.
    precision = torch.promote_types(x.dtype, torch.float32)

    def steps(count: int) -> Tensor:
        return torch.arange(count, dtype=precision, device=x.device)

    tap_y = steps(kernel_h).repeat_interleave(kernel_w).view(1, taps, 1, 1)
    tap_x = steps(kernel_w).repeat(kernel_h).view(1, taps, 1, 1)
    cell_y = (steps(out_h) * stride[0] - padding[0]).view(1, 1, out_h, 1)
    cell_x = (steps(out_w) * stride[1] - padding[1]).view(1, 1, 1, out_w)
    moves = offset.to(precision).reshape(batch, taps, 2, out_h, out_w)
    sample_y = cell_y + tap_y + moves[:, :, 0]  # (B, taps, Ho, Wo)
    sample_x = cell_x + tap_x + moves[:, :, 1]
    grid = torch.stack([(2 * sample_x + 1) / width - 1, (2 * sample_y + 1) / height - 1], dim=-1)
    grid = grid.view(batch, taps * out_h, out_w, 2)
    columns = F.grid_sample(x.to(precision), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    columns = columns.to(x.dtype).reshape(batch, channels, taps, out_h, out_w)
    if mask is not None:
        columns = columns * mask.reshape(batch, 1, taps, out_h, out_w)
    return F.conv2d(columns.reshape(batch, channels * taps, out_h, out_w),
                    weight.reshape(out_channels, channels * taps, 1, 1), bias)
