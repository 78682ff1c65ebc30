"""RoIAlign against its definition, one sample at a time, and against recorded values."""
from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from stmask_deploy.ops import roi_align

RECORDED = Path(__file__).parent.parent / "data" / "roi_align.npz"
Doubles = NDArray[np.float64]


def sample(plane: Doubles, y: float, x: float) -> float:
    """Bilinear between cell centres; up to a cell beyond the map counts as its edge, farther out is zero."""
    height, width = plane.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = min(max(y, 0.0), height - 1), min(max(x, 0.0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = plane[top, left] * (1 - (x - left)) + plane[top, right] * (x - left)
    lower = plane[bottom, left] * (1 - (x - left)) + plane[bottom, right] * (x - left)
    return float(upper * (1 - (y - top)) + lower * (y - top))


def slow_roi_align(features: Doubles, boxes: Doubles, size: int) -> Doubles:
    """Bins as loops over their samples. A box coordinate of 0.5 is the centre of the first cell."""
    out = np.zeros((len(boxes), features.shape[0], size, size))
    for n, c, p, q in np.ndindex(out.shape):
        x1, y1, x2, y2 = boxes[n]
        rows, columns = math.ceil((y2 - y1) / size), math.ceil((x2 - x1) / size)
        total = 0.0
        for i, j in np.ndindex(rows, columns):
            y = y1 - 0.5 + (y2 - y1) / size * (p + (i + 0.5) / rows)
            x = x1 - 0.5 + (x2 - x1) / size * (q + (j + 0.5) / columns)
            total += sample(features[c], y, x)
        out[n, c, p, q] = total / max(rows * columns, 1)
    return out


BOXES = [
    pytest.param([2.3, 1.1, 6.7, 8.9], id="inside"),
    pytest.param([0, 0, 12, 10], id="whole map, several samples a bin"),
    pytest.param([0, 0, 12, 0.4], id="flat, at the upper edge"),
    pytest.param([11.2, 3, 12, 10], id="narrow, at the corner"),
    pytest.param([4, 4, 4.001, 4.001], id="a point in all but name"),
    pytest.param([4, 4, 4, 9], id="no width"),
    pytest.param([4, 4, 9, 4], id="no height"),
    pytest.param([12, 10, 12, 10], id="no area, at the end of the map"),
    pytest.param([3, 3, 6, 6], id="sides that are multiples of the bins"),
]


@pytest.mark.parametrize("size", [3, 7])
@pytest.mark.parametrize("box", BOXES)
def test_definition(box: list[float], size: int) -> None:
    features = np.random.default_rng(0).normal(size=(2, 10, 12))
    got = roi_align(torch.from_numpy(features)[None], torch.tensor([box], dtype=torch.float64), size)
    np.testing.assert_allclose(got.numpy(), slow_roi_align(features, np.array([box]), size), rtol=0, atol=1e-12)


def test_many_boxes() -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(3, 9, 14))
    boxes = np.sort(rng.random((20, 2, 2)), axis=1).reshape(20, 4) * [14, 9, 14, 9]
    got = roi_align(torch.from_numpy(features)[None], torch.from_numpy(boxes), 4)
    np.testing.assert_allclose(got.numpy(), slow_roi_align(features, boxes, 4), rtol=0, atol=1e-12)


def test_recorded_values() -> None:
    with np.load(RECORDED) as recorded:
        features, boxes, want = (recorded[f"roi_{name}"] for name in ("features", "boxes", "pooled"))
    _, _, height, width = features.shape
    # The released code sorts the corners and clamps them to the map before it pools.
    corners = np.clip(np.sort(boxes.reshape(-1, 2, 2), axis=1), 0, 1).reshape(-1, 4) * [width, height, width, height]
    got = roi_align(torch.from_numpy(features), torch.from_numpy(corners.astype(np.float32)), want.shape[-1])
    np.testing.assert_allclose(got.numpy(), want, rtol=0, atol=1e-4 * np.ptp(want))


def test_no_boxes() -> None:
    assert roi_align(torch.zeros(1, 5, 4, 4), torch.zeros(0, 4), 7).shape == (0, 5, 7, 7)


def test_gradients_of_the_features() -> None:
    features = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    boxes = torch.tensor([[0.2, 0.3, 4.1, 4.4], [1.0, 2.0, 1.0, 3.0]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda maps: roi_align(maps, boxes, 3), [features])


def test_no_order_of_factors_is_searched_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch asks opt_einsum about three factors or more, whose answer would hold for one number of boxes alone."""
    einsum = torch.einsum

    def checked(equation: str, *factors: torch.Tensor) -> torch.Tensor:
        assert len(factors) == 2
        return einsum(equation, *factors)

    monkeypatch.setattr(torch, "einsum", checked)
    assert roi_align(torch.ones(1, 2, 4, 4), torch.tensor([[0.0, 0, 4, 4]]), 2).shape == (1, 2, 2, 2)
