"""Feature calibration for bounding boxes: offsets, kernels, and which anchor reads which."""
from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stmask_deploy.config import Calibration
from stmask_deploy.models.calibration import CalibratedPrediction, SameConv, aligned_offsets

KERNELS = [(3, 3), (3, 5), (5, 3), (2, 3), (3, 2)]


def randn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("kernel", [*KERNELS, (1, 1), (4, 4)])
def test_same_size(kernel: tuple[int, int]) -> None:
    conv = SameConv(2, 3, kernel)
    x = randn(2, 2, 6, 7)
    # Half the kernel above and at the left, the rest below and at the right.
    above, left = kernel[0] // 2, kernel[1] // 2
    padded = F.pad(x, (left, kernel[1] - 1 - left, above, kernel[0] - 1 - above))
    torch.testing.assert_close(conv(x), F.conv2d(padded, conv.weight, conv.bias))


def test_aligned_offsets_by_hand() -> None:
    # Equations 6 to 8 for one cell of a 3x5 kernel: d = (x 0.5, y -1, w 2, h -3).
    offsets = aligned_offsets(torch.tensor([0.5, -1.0, 2.0, -3.0]).view(1, 4, 1, 1), (3, 5)).view(15, 2).tolist()
    shift_y, shift_x = 0.1 * 3 * -1.0, 0.1 * 5 * 0.5
    shrink, grow = math.exp(0.2 * -3) - 1, math.exp(0.2 * 2) - 1
    assert offsets[0] == pytest.approx((shift_y - shrink, shift_x - 2 * grow))  # upper left tap, at (-1, -2)
    assert offsets[7] == pytest.approx((shift_y, shift_x))  # the centre
    assert offsets[9] == pytest.approx((shift_y, shift_x + 2 * grow))  # right of it, at (0, 2)
    assert offsets[12] == pytest.approx((shift_y + shrink, shift_x))  # below it, at (1, 0)
    assert offsets[0][0] == pytest.approx(0.15119, abs=1e-5) and offsets[0][1] == pytest.approx(-0.73365, abs=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_aligned_taps_cover_the_box(kernel: tuple[int, int]) -> None:
    # Whatever the deltas, the taps are the anchor's own, moved and stretched as the box is (same formula as decoding).
    height, width = kernel
    deltas = randn(1, 4, 2, 2)
    offsets = aligned_offsets(deltas, kernel).view(height, width, 2, 2, 2)  # row, column, (dy, dx), y, x
    d_x, d_y, d_w, d_h = deltas[0]
    for i in range(height):
        for j in range(width):
            row, column = i - height // 2, j - width // 2
            torch.testing.assert_close(row + offsets[i, j, 0], 0.1 * height * d_y + torch.exp(0.2 * d_h) * row)
            torch.testing.assert_close(column + offsets[i, j, 1], 0.1 * width * d_x + torch.exp(0.2 * d_w) * column)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("kind", [Calibration.ADAPTIVE, Calibration.ALIGNED])
def test_no_deltas_no_calibration(kernel: tuple[int, int], kind: Calibration) -> None:
    layer = CalibratedPrediction(3, 2, kernel, kind)
    x = randn(2, 3, 5, 6)
    plain = SameConv(3, 3, kernel)
    with torch.no_grad():
        plain.weight.copy_(layer.conv_adaption.weight)
        nn.init.zeros_(plain.bias)
        torch.testing.assert_close(layer(x, torch.zeros(2, 4, 5, 6)), layer.conv(plain(x).relu()), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", [Calibration.ADAPTIVE, Calibration.ALIGNED])
def test_box_one_cell_to_the_right_reads_one_cell_to_the_right(kind: Calibration) -> None:
    layer = CalibratedPrediction(2, 3, (3, 3), kind)
    x = randn(1, 2, 6, 9)
    if kind is Calibration.ALIGNED:
        deltas = torch.zeros(1, 4, 6, 9)
        deltas[:, 0] = 1 / 0.3  # d_x that moves a 3 cells wide anchor by one cell
    else:
        deltas = randn(1, 4, 6, 9).abs()
        with torch.no_grad():
            layer.conv_offset.weight.zero_()
            layer.conv_offset.weight[1::2, 2] = 1.0  # every dx is d_w
        deltas[:, 2] = 1
    with torch.no_grad():
        layer.conv.weight[:, :, [0, 2]] = 0  # the second convolution reads its own cell alone,
        layer.conv.weight[:, :, :, [0, 2]] = 0  # so what lies beyond the border does not matter
        moved, still = layer(x, deltas), layer(x, torch.zeros_like(deltas))
    torch.testing.assert_close(moved[..., :-2], still[..., 1:-1], rtol=0, atol=1e-5)


def test_parameters() -> None:
    adaptive = {name: tuple(value.shape) for name, value in
                CalibratedPrediction(6, 4, (3, 5), Calibration.ADAPTIVE).named_parameters()}
    assert adaptive == {"conv_offset.weight": (30, 4, 1, 1), "conv_adaption.weight": (6, 6, 3, 5),
                        "conv.weight": (4, 6, 3, 5), "conv.bias": (4,)}
    aligned = {name for name, _ in CalibratedPrediction(6, 4, (3, 5), Calibration.ALIGNED).named_parameters()}
    assert aligned == adaptive.keys() - {"conv_offset.weight"}


@pytest.mark.parametrize("kind", [Calibration.ADAPTIVE, Calibration.ALIGNED])
def test_scales_share_weights_and_have_their_own_offsets(kind: Calibration) -> None:
    layer = CalibratedPrediction(3, 2, (3, 3), kind)
    x, deltas = randn(1, 3, 4, 5), randn(1, 12, 4, 5)
    both = layer(x, deltas)
    assert both.shape == (1, 6, 4, 5)
    for scale in range(3):
        torch.testing.assert_close(both[:, 2 * scale:2 * scale + 2], layer(x, deltas[:, 4 * scale:4 * scale + 4]))


@pytest.mark.parametrize("kind", [Calibration.ADAPTIVE, Calibration.ALIGNED])
def test_features_follow_the_boxes_without_pulling_at_them(kind: Calibration) -> None:
    layer = CalibratedPrediction(4, 2, (3, 3), kind)
    x, deltas = randn(1, 4, 5, 6).requires_grad_(), randn(1, 4, 5, 6).requires_grad_()
    layer(x, deltas).square().sum().backward()
    assert deltas.grad is None
    assert x.grad is not None and float(x.grad.abs().sum()) > 0
    assert all(parameter.grad is not None for parameter in layer.parameters()), "offsets themselves are learned"
