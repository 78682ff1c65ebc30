"""Deformable convolution against its definition, one sample at a time."""
from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from stmask_deploy.ops import deform_conv2d

Doubles = NDArray[np.float64]


def bilinear(plane: Doubles, y: float, x: float) -> float:
    """Value between the four cells around (y, x); cells outside are zero."""
    top, left = int(np.floor(y)), int(np.floor(x))
    value = 0.0
    for row in (top, top + 1):
        for column in (left, left + 1):
            if 0 <= row < plane.shape[0] and 0 <= column < plane.shape[1]:
                value += plane[row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return value


def slow_deform_conv2d(x: Doubles, weight: Doubles, offset: Doubles, mask: Doubles | None, bias: Doubles | None,
                       stride: tuple[int, int], padding: tuple[int, int]) -> Doubles:
    """Paper eq. 3 as loops over every output cell and tap."""
    (batch, channels), (num_out, _, kernel_h, kernel_w) = x.shape[:2], weight.shape
    out = np.zeros((batch, num_out, *offset.shape[2:]))
    for b, o, row, column in np.ndindex(out.shape):
        total = 0.0 if bias is None else bias[o]
        for i, j in np.ndindex(kernel_h, kernel_w):
            tap = i * kernel_w + j
            y = row * stride[0] - padding[0] + i + offset[b, 2 * tap, row, column]
            z = column * stride[1] - padding[1] + j + offset[b, 2 * tap + 1, row, column]
            factor = 1.0 if mask is None else mask[b, tap, row, column]
            total += factor * sum(weight[o, c, i, j] * bilinear(x[b, c], y, z) for c in range(channels))
        out[b, o, row, column] = total
    return out


def to_torch(*values: Doubles | None) -> list[Tensor | None]:
    return [None if value is None else torch.from_numpy(value) for value in values]


CASES = [  # kernel, stride, padding, map, output, spread of the offsets
    pytest.param((3, 3), (1, 1), (1, 1), (5, 6), (5, 6), 1.0, id="3x3"),
    pytest.param((3, 5), (1, 1), (1, 2), (4, 6), (4, 6), 1.0, id="3x5, the wide kernel of FCA"),
    pytest.param((5, 3), (1, 1), (2, 1), (6, 4), (6, 4), 1.0, id="5x3, the tall one"),
    pytest.param((1, 1), (1, 1), (0, 0), (4, 3), (4, 3), 1.0, id="1x1"),
    pytest.param((2, 3), (1, 1), (1, 1), (4, 5), (4, 5), 1.0, id="2x3, padded above only"),
    pytest.param((3, 2), (1, 1), (1, 1), (5, 4), (5, 4), 1.0, id="3x2, padded at the left only"),
    pytest.param((3, 3), (2, 2), (1, 1), (6, 8), (3, 4), 1.0, id="stride 2, even map"),
    pytest.param((3, 3), (2, 2), (1, 1), (5, 7), (3, 4), 1.0, id="stride 2, odd map"),
    pytest.param((3, 3), (2, 1), (1, 1), (6, 4), (3, 4), 1.0, id="strides that differ"),
    pytest.param((3, 3), (1, 1), (1, 1), (4, 5), (4, 5), 4.0, id="offsets across the border"),
    pytest.param((3, 3), (1, 1), (1, 1), (1, 1), (1, 1), 1.0, id="map of one cell"),
]


@pytest.mark.parametrize("modulated", [False, True])
@pytest.mark.parametrize("kernel, stride, padding, size, out, spread", CASES)
def test_definition(kernel: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int], size: tuple[int, int],
                    out: tuple[int, int], spread: float, modulated: bool) -> None:
    rng = np.random.default_rng(1)
    taps = kernel[0] * kernel[1]
    x, weight = rng.normal(size=(2, 3, *size)), rng.normal(size=(2, 3, *kernel))
    offset = rng.normal(scale=spread, size=(2, 2 * taps, *out))
    mask = rng.random((2, taps, *out)) if modulated else None
    bias = rng.normal(size=2) if modulated else None
    got = deform_conv2d(*to_torch(x, weight, offset, mask, bias), list(stride), list(padding))
    np.testing.assert_allclose(got.numpy(), slow_deform_conv2d(x, weight, offset, mask, bias, stride, padding),
                               rtol=0, atol=1e-12)


def test_offsets_far_outside_read_zeros() -> None:
    x, weight = torch.ones(1, 2, 4, 5), torch.ones(3, 2, 3, 3)
    for far in (7.0, 1e3, 1e6, -1e6):
        out = deform_conv2d(x, weight, torch.full((1, 18, 4, 5), far), None, torch.tensor([1.0, 2, 3]), [1, 1], [1, 1])
        assert torch.equal(out, torch.tensor([1.0, 2, 3]).view(1, 3, 1, 1).expand(1, 3, 4, 5))


def test_samples_fade_out_over_the_last_cell() -> None:
    # Half a cell beyond the border reads half the border's value, a whole cell beyond reads nothing.
    x, weight = torch.ones(1, 1, 1, 3), torch.ones(1, 1, 1, 1)
    moves = torch.zeros(1, 2, 1, 3)
    moves[0, 1, 0] = torch.tensor([-0.5, 0.25, 1.0])
    torch.testing.assert_close(deform_conv2d(x, weight, moves, None, None, [1, 1], [0, 0]),
                               torch.tensor([[[[0.5, 1.0, 0.0]]]]))


@pytest.mark.parametrize("kernel, stride", [((3, 3), 1), ((3, 5), 1), ((5, 3), 1), ((3, 3), 2)])
def test_no_offsets_is_an_ordinary_convolution(kernel: tuple[int, int], stride: int) -> None:
    generator = torch.Generator().manual_seed(2)
    x, weight = torch.randn(2, 4, 24, 40, generator=generator), torch.randn(5, 4, *kernel, generator=generator)
    bias = torch.randn(5, generator=generator)
    padding = [kernel[0] // 2, kernel[1] // 2]
    want = F.conv2d(x, weight, bias, stride, padding)
    offset = torch.zeros(2, 2 * kernel[0] * kernel[1], *want.shape[2:])
    torch.testing.assert_close(deform_conv2d(x, weight, offset, None, bias, [stride] * 2, padding), want,
                               rtol=0, atol=2e-4)


def test_empty_batch() -> None:
    out = deform_conv2d(torch.zeros(0, 2, 4, 4), torch.zeros(3, 2, 3, 3), torch.zeros(0, 18, 4, 4), None, None,
                        [1, 1], [1, 1])
    assert out.shape == (0, 3, 4, 4)


def test_gradients() -> None:
    rng = np.random.default_rng(3)
    # Bilinear sampling has kinks at whole cells, where no difference quotient holds: offsets keep off them.
    offset = rng.integers(-2, 3, size=(1, 18, 2, 3)) + rng.uniform(0.2, 0.8, size=(1, 18, 2, 3))
    values = [rng.normal(size=(1, 2, 4, 5)), rng.normal(size=(2, 2, 3, 3)), offset, rng.random((1, 9, 2, 3)),
              rng.normal(size=2)]
    inputs = [torch.from_numpy(value).requires_grad_() for value in values]
    assert torch.autograd.gradcheck(lambda *args: deform_conv2d(*args, [2, 2], [1, 1]), inputs)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float16, 0.01), (torch.bfloat16, 0.08)])
def test_half_precision_samples_the_right_cells(dtype: torch.dtype, tolerance: float) -> None:
    # Near the right edge of a wide map a coordinate of 8 or 11 bits would be a whole cell off.
    generator = torch.Generator().manual_seed(4)
    x, offset = torch.rand(1, 1, 3, 600, generator=generator), torch.rand(1, 2, 3, 600, generator=generator).round()
    weight = torch.ones(1, 1, 1, 1)
    want = deform_conv2d(x, weight, offset, None, None, [1, 1], [0, 0])
    got = deform_conv2d(x.to(dtype), weight.to(dtype), offset.to(dtype), None, None, [1, 1], [0, 0])
    assert got.dtype == dtype
    assert float((got.float() - want).abs().max()) < tolerance
