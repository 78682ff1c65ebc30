"""Temporal network: what it pools, for which boxes, and for how many."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stmask_deploy.models.temporal import TemporalNet
from stmask_deploy.ops import correlation, roi_align

RECORDED = Path(__file__).parent.parent / "data" / "roi_align.npz"


def make_net(feature_width: int = 4, patch_size: int = 3, roi_size: int = 7) -> TemporalNet:
    torch.manual_seed(0)
    return TemporalNet(feature_width, patch_size, roi_size, (5, 6, 7), 8)


def make_maps(width: int = 4, size: tuple[int, int] = (6, 10)) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    prev_fpn, fpn = (torch.randn(1, 3, *size, generator=generator) for _ in range(2))
    prev_temporal, temporal = (torch.randn(1, width, *size, generator=generator) for _ in range(2))
    return prev_fpn, fpn, prev_temporal, temporal


def pool(net: TemporalNet, maps: tuple[Tensor, Tensor, Tensor, Tensor], boxes: Tensor) -> Tensor:
    return net.pool_boxes(net.fuse(*maps), boxes)


BOXES = torch.tensor([[0.1, 0.2, 0.6, 0.7], [0.0, 0.0, 1.0, 1.0]])


@pytest.mark.parametrize("count", [0, 1, 2, 50])
@pytest.mark.parametrize("roi_size", [5, 7])
def test_shapes(count: int, roi_size: int) -> None:
    net = make_net(roi_size=roi_size)
    boxes = BOXES.repeat(25, 1)[:count]
    assert pool(net, make_maps(), boxes).shape == (count, 9 + 8, roi_size, roi_size)
    deltas, coeffs = net(*make_maps(), boxes)
    assert deltas.shape == (count, 4) and coeffs.shape == (count, 8)


def test_features_and_their_order() -> None:
    prev_fpn, fpn, prev_temporal, temporal = make_maps()
    motion = F.leaky_relu(correlation(prev_fpn, fpn, 3), 0.1)
    # Correlation, previous, current; the ReLU over all three comes after the leaky one, which it undoes.
    features = torch.cat([motion, prev_temporal, temporal], dim=1).clamp(min=0)
    got = pool(make_net(), (prev_fpn, fpn, prev_temporal, temporal), BOXES)
    torch.testing.assert_close(got, roi_align(features, BOXES * torch.tensor([10.0, 6, 10, 6]), 7))


def test_prediction() -> None:
    net = make_net()
    pooled = torch.randn(3, 17, 7, 7, generator=torch.Generator().manual_seed(2))
    x = net.conv3(net.conv2(net.conv1(pooled).relu()).relu()).relu()
    assert x.shape == (3, 7, 7, 7)  # every convolution is padded
    mean = x.flatten(2).mean(dim=2)
    deltas, coeffs = net.predict(pooled)
    torch.testing.assert_close(deltas, mean @ net.fc.weight.T + net.fc.bias)
    torch.testing.assert_close(coeffs, mean @ net.fc_coeff.weight.T + net.fc_coeff.bias)


def test_objects_do_not_influence_each_other() -> None:
    net = make_net()
    both, alone = net(*make_maps(), BOXES)[0], net(*make_maps(), BOXES[1:])[0]
    torch.testing.assert_close(both[1:], alone)


@pytest.mark.parametrize("box, same_as", [
    pytest.param([0.6, 0.7, 0.1, 0.2], [0.1, 0.2, 0.6, 0.7], id="both axes swapped"),
    pytest.param([0.6, 0.2, 0.1, 0.7], [0.1, 0.2, 0.6, 0.7], id="one axis swapped"),
    pytest.param([-0.5, -1.0, 0.4, 0.5], [0.0, 0.0, 0.4, 0.5], id="reaching out above and left"),
    pytest.param([0.5, 0.5, 1.5, 9.0], [0.5, 0.5, 1.0, 1.0], id="reaching out below and right"),
    pytest.param([1.4, 1.2, 0.9, 1.0], [0.9, 1.0, 1.0, 1.0], id="swapped and reaching out, flat at the edge"),
])
def test_boxes_of_any_kind(box: list[float], same_as: list[float]) -> None:
    net = make_net()
    torch.testing.assert_close(pool(net, make_maps(), torch.tensor([box])),
                               pool(net, make_maps(), torch.tensor([same_as])))


@pytest.mark.parametrize("box", [
    pytest.param([0.3, 0.4, 0.3, 0.4], id="no area"), pytest.param([0.3, 0.4, 0.8, 0.4], id="no height"),
    pytest.param([1.2, 0.1, 1.7, 0.9], id="outside at the right"), pytest.param([0.1, -2.0, 0.9, -1.0], id="above"),
])
def test_boxes_of_nothing_pool_to_zero(box: list[float]) -> None:
    net = make_net()
    assert not pool(net, make_maps(), torch.tensor([box])).any()
    assert all(value.isfinite().all() for value in net(*make_maps(), torch.tensor([box])))


def test_recorded_values() -> None:
    with np.load(RECORDED) as recorded:
        features, boxes, want = (torch.from_numpy(recorded[f"roi_{name}"]) for name in ("features", "boxes", "pooled"))
    net = make_net(feature_width=3, patch_size=1)
    nothing = torch.zeros(1, 1, *features.shape[2:])

    def pooled(maps: Tensor) -> Tensor:
        return pool(net, (nothing, nothing, maps[:, :3], maps[:, 3:]), boxes)[:, 1:]

    # Pooling is linear, so the parts that the ReLU keeps of the features and of their negative add up to it.
    got = pooled(features) - pooled(-features)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-4 * float(want.max() - want.min()))


def test_patch_sizes() -> None:
    for patch_size in (1, 5, 11):
        net = make_net(patch_size=patch_size)
        assert net.conv1.in_channels == patch_size**2 + 8
        assert net(*make_maps(), BOXES)[0].shape == (2, 4)
