"""Correlation against its definition, one displacement at a time."""
from __future__ import annotations

import numpy as np
import pytest
import torch

from stmask_deploy.ops import correlation


@pytest.mark.parametrize("patch, batch, channels, size", [
    pytest.param(1, 1, 4, (3, 5), id="no displacement"),
    pytest.param(3, 2, 5, (4, 6), id="3, two pairs of maps"),
    pytest.param(11, 1, 3, (12, 14), id="11, the released one"),
    pytest.param(11, 1, 2, (3, 4), id="window larger than the map"),
    pytest.param(3, 1, 1, (1, 1), id="map of one cell"),
])
def test_definition(patch: int, batch: int, channels: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    prev, cur = rng.normal(size=(2, batch, channels, *size))
    height, width = size
    want = np.zeros((batch, patch * patch, height, width))
    for b, i, j, y, x in np.ndindex(batch, patch, patch, height, width):
        row, column = y + i - patch // 2, x + j - patch // 2
        if 0 <= row < height and 0 <= column < width:
            want[b, i * patch + j, y, x] = np.mean(prev[b, :, y, x] * cur[b, :, row, column])
    got = correlation(torch.from_numpy(prev), torch.from_numpy(cur), patch)
    np.testing.assert_allclose(got.numpy(), want, rtol=0, atol=1e-14)


def test_peak_shows_where_a_cell_went() -> None:
    prev, cur = torch.zeros(1, 1, 7, 7), torch.zeros(1, 1, 7, 7)
    prev[0, 0, 2, 3] = cur[0, 0, 4, 2] = 1  # two rows down, one column left
    window = correlation(prev, cur, 5)[0, :, 2, 3].view(5, 5)
    assert divmod(int(window.argmax()), 5) == (2 + 2, 2 - 1)


def test_gradients() -> None:
    maps = [torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda prev, cur: correlation(prev, cur, 3), maps)
