"""Box decoding in PyTorch is the runtime's, and the inverse of encoding."""
from __future__ import annotations

import numpy as np
import torch

from stmask_deploy import geometry
from stmask_deploy.models.boxes import decode_boxes


def test_same_as_on_the_host() -> None:
    rng = np.random.default_rng(0)
    deltas, anchors = rng.normal(size=(50, 4)).astype(np.float32), rng.random((50, 4)).astype(np.float32)
    got = decode_boxes(torch.from_numpy(deltas), torch.from_numpy(anchors)).numpy()
    np.testing.assert_allclose(got, geometry.decode_boxes(deltas, anchors), rtol=0, atol=1e-6)


def test_leading_axes_and_none() -> None:
    deltas, anchors = torch.randn(2, 5, 4), torch.rand(5, 4)
    got = decode_boxes(deltas, anchors)
    assert got.shape == (2, 5, 4)
    torch.testing.assert_close(got[1], decode_boxes(deltas[1], anchors))
    assert decode_boxes(torch.zeros(0, 4), torch.zeros(0, 4)).shape == (0, 4)


def test_gradients() -> None:
    deltas = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    anchors = torch.rand(3, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda values: decode_boxes(values, anchors), deltas)
