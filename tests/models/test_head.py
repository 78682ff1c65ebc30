"""Head: the order of anchors, the order of centerness, norms, and which branch reads which."""
from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stmask_deploy.config import Calibration, CenternessOrder
from stmask_deploy.models.calibration import CalibratedPrediction
from stmask_deploy.models.head import PredictionHead, by_anchor, tower

KERNELS = ((3, 3), (3, 5), (5, 3))


def make_head(**changes: Any) -> PredictionHead:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "in_channels": 5, "width": 6, "tower_depth": 2, "kernels": KERNELS, "num_scales": 1, "num_classes": 4,
        "num_prototypes": 3, "embedding_dim": 8, "class_calibration": Calibration.NONE,
        "mask_calibration": Calibration.NONE, "track_calibration": Calibration.NONE,
        "centerness_order": CenternessOrder.RELEASED}
    return PredictionHead(**{**settings, **changes})


def features(batch: int = 2, height: int = 4, width: int = 5) -> Tensor:
    return torch.randn(batch, 5, height, width, generator=torch.Generator().manual_seed(7))


def test_by_anchor_spelled_out() -> None:
    # Value of image b, kernel k, scale s, entry v at cell (y, x), written as decimal digits.
    batch, kernels, scales, size, height, width = 2, 3, 2, 4, 2, 3
    maps = [torch.tensor([[[[b * 10**5 + k * 10**4 + s * 1000 + v * 100 + y * 10 + x for x in range(width)]
                            for y in range(height)] for s in range(scales) for v in range(size)] for b in range(batch)])
            for k in range(kernels)]
    flat = by_anchor(maps, size)
    assert flat.shape == (2, height * width * kernels * scales, size)
    row = 0
    for y in range(height):
        for x in range(width):
            for k in range(kernels):
                for s in range(scales):
                    assert flat[1, row].tolist() == [10**5 + k * 10**4 + s * 1000 + v * 100 + y * 10 + x
                                                     for v in range(size)]
                    row += 1


@pytest.mark.parametrize("scales", [1, 3])
@pytest.mark.parametrize("kind", list(Calibration))
def test_shapes_and_ranges(kind: Calibration, scales: int) -> None:
    head = make_head(num_scales=scales, class_calibration=kind, mask_calibration=kind, track_calibration=kind)
    with torch.no_grad():
        found, [shared] = head([features()])
    count = 4 * 5 * 3 * scales
    assert found.box_deltas.shape == (2, count, 4) and found.mask_coeffs.shape == (2, count, 3)
    assert found.class_probs.shape == (2, count, 4) and found.embeddings.shape == (2, count, 8)
    assert found.centerness.shape == (2, count) and shared.shape == (2, 6, 4, 5)
    ones = torch.ones(2, count)
    torch.testing.assert_close(found.class_probs.sum(dim=-1), ones)
    torch.testing.assert_close(found.embeddings.norm(dim=-1), ones)
    assert float(found.centerness.abs().max()) < 1 and float(shared.min()) == 0


def constant_maps(layers: nn.ModuleList, start: float) -> None:
    """Make every kernel's layer return its own constant: start, start + 1, ..."""
    with torch.no_grad():
        for k, layer in enumerate(layers):
            nn.init.zeros_(layer.weight)
            layer.bias.fill_(start + k)


def test_anchor_order_is_row_column_kernel() -> None:
    head = make_head()
    constant_maps(head.mask_layer, 10)
    found, _ = head([features(1)])
    assert found.mask_coeffs[0, :, 0].tolist() == [10, 11, 12] * 20


def test_released_centerness_is_kernel_by_kernel() -> None:
    head = make_head()
    constant_maps(head.centerness_layer, 0)
    found, _ = head([features(1)])
    assert found.centerness[0].atanh().round().tolist() == [0] * 20 + [1] * 20 + [2] * 20
    head.centerness_order = CenternessOrder.ANCHOR
    found, _ = head([features(1)])
    assert found.centerness[0].atanh().round().tolist() == [0, 1, 2] * 20


@pytest.mark.parametrize("scales", [1, 2])
def test_released_centerness_by_position(scales: int) -> None:
    # Position p of a level of h x w cells takes kernel p // (h * w) at cell p % (h * w) (scales one after another).
    head = make_head(num_scales=scales)
    x = features(1, 3, 4)
    with torch.no_grad():
        found, [shared] = head([x])
        maps = [layer(head.bbox_extra(shared)) for layer in head.centerness_layer]  # each (1, S, 3, 4)
    for position, value in enumerate(found.centerness[0].tolist()):
        kernel, rest = divmod(position, scales * 12)
        scale, cell = divmod(rest, 12)
        assert value == pytest.approx(float(maps[kernel][0, scale, cell // 4, cell % 4].tanh()), abs=1e-6)


def test_anchor_centerness_by_position() -> None:
    head = make_head(centerness_order=CenternessOrder.ANCHOR, num_scales=2)
    x = features(1, 3, 4)
    with torch.no_grad():
        found, [shared] = head([x])
        maps = [layer(head.bbox_extra(shared)) for layer in head.centerness_layer]
    for position, value in enumerate(found.centerness[0].tolist()):
        cell, rest = divmod(position, 3 * 2)
        kernel, scale = divmod(rest, 2)
        assert value == pytest.approx(float(maps[kernel][0, scale, cell // 4, cell % 4].tanh()), abs=1e-6)


@pytest.mark.parametrize("order", list(CenternessOrder))
@pytest.mark.parametrize("scales", [1, 2])
def test_levels_follow_each_other(scales: int, order: CenternessOrder) -> None:
    head = make_head(num_scales=scales, centerness_order=order, mask_calibration=Calibration.ALIGNED)
    levels = [features(2, 4, 5), features(2, 2, 3), features(2, 1, 1)]
    with torch.no_grad():
        found, shared = head(levels)
        alone = [head([level]) for level in levels]
    for name, values in vars(found).items():
        expected = torch.cat([getattr(one, name) for one, _ in alone], dim=1)
        torch.testing.assert_close(values, expected, rtol=1e-6, atol=1e-6)
    assert all(torch.equal(ours, theirs) for ours, (_, [theirs]) in zip(shared, alone, strict=True))


@pytest.mark.parametrize("branch, changed", [
    ("conf_extra", {"class_probs"}), ("mask_extra", {"mask_coeffs"}), ("track_extra", {"embeddings"}),
    ("bbox_extra", {"box_deltas", "centerness"}), ("upfeature", {"class_probs", "mask_coeffs", "embeddings",
                                                                "box_deltas", "centerness"}),
])
def test_towers(branch: str, changed: set[str]) -> None:
    head = make_head()
    before, _ = head([features(1)])
    with torch.no_grad():
        getattr(head, branch)[0].weight.mul_(-1)
    after, _ = head([features(1)])
    assert {name for name in vars(before) if not torch.equal(getattr(before, name), getattr(after, name))} == changed


@pytest.mark.parametrize("branch, output", [("class", "class_probs"), ("mask", "mask_coeffs"), ("track", "embeddings")])
def test_calibrated_branches_read_their_own_kernels_boxes(branch: str, output: str) -> None:
    # Moving the boxes of one kernel moves what that kernel's anchors read in the calibrated branch, nothing else.
    head = make_head(**{f"{branch}_calibration": Calibration.ALIGNED})
    before, _ = head([features(1)])
    with torch.no_grad():
        head.bbox_layer[1].bias[0] += 5
    after, _ = head([features(1)])
    changed = {name for name in vars(before) if not torch.equal(getattr(before, name), getattr(after, name))}
    assert changed == {"box_deltas", output}
    rows = (getattr(before, output) != getattr(after, output)).any(dim=-1)[0].view(20, 3).any(dim=0)
    assert rows.tolist() == [False, True, False]


def test_calibration_is_per_branch() -> None:
    head = make_head(mask_calibration=Calibration.ADAPTIVE)
    assert all(isinstance(layer, CalibratedPrediction) for layer in head.mask_layer)
    assert not any(isinstance(layer, CalibratedPrediction) for layer in (*head.conf_layer, *head.track_layer))


@pytest.mark.parametrize("depth", [0, 1, 3])
def test_tower_depth(depth: int) -> None:
    assert [type(layer) for layer in tower(4, depth)] == [nn.Conv2d, nn.ReLU] * depth
    assert make_head(tower_depth=depth)([features(1)])[0].box_deltas.shape == (1, 60, 4)
