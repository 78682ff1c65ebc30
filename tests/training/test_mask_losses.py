"""The mask loss against a loop over objects, rows and columns."""
from __future__ import annotations

import math

import pytest
import torch
from tiny_targets import boxes_of
from torch import Tensor

from stmask_deploy.training.mask_losses import MARGIN, mask_loss

HEIGHT, WIDTH, PROTOTYPES = 9, 13, 4
BOXES = boxes_of([(0.3, 0.2, 0.7, 0.6), (0.0, 0.0, 1.0, 1.0), (0.9, 0.8, 1.3, 1.4), (0.5, 0.5, 0.5, 0.5)])


def example(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(HEIGHT, WIDTH, PROTOTYPES, generator=generator),
            torch.randn(len(BOXES), PROTOTYPES, generator=generator),
            torch.rand(len(BOXES), HEIGHT, WIDTH, generator=generator))


def loss_in_loops(prototypes: Tensor, coeffs: Tensor, mask: Tensor, box: list[float]) -> float:
    """Of one object; a cell takes part when it lies less than MARGIN cells from the box."""
    left, top, right, bottom = box[0] * WIDTH, box[1] * HEIGHT, box[2] * WIDTH, box[3] * HEIGHT
    errors = []
    for y in range(HEIGHT):
        for x in range(WIDTH):
            if not (top - MARGIN <= y < bottom + MARGIN and left - MARGIN <= x < right + MARGIN):
                continue
            logit = sum(float(prototypes[y, x, p]) * math.tanh(float(coeffs[p])) for p in range(PROTOTYPES))
            found, true = 1 / (1 + math.exp(-logit)), float(mask[y, x])
            errors.append(-(true * math.log(found) + (1 - true) * math.log(1 - found)))
    return sum(errors) / len(errors)


def test_against_loops() -> None:
    prototypes, coeffs, masks = example()
    expected = [loss_in_loops(prototypes, coeffs[row], masks[row], box) for row, box in enumerate(BOXES.tolist())]
    torch.testing.assert_close(mask_loss(prototypes, coeffs, masks, BOXES), torch.tensor(expected))


def test_cells_away_from_the_box_do_not_count() -> None:
    prototypes, coeffs, masks = example()
    before = mask_loss(prototypes, coeffs, masks, BOXES)
    masks[0, :, -1] = 1 - masks[0, :, -1]  # the last column is 13 - 0.7 * 13 = 3.9 cells right of the first box
    after = mask_loss(prototypes, coeffs, masks, BOXES)
    assert torch.equal(before, after)
    masks[0, 4, 6] = 1 - masks[0, 4, 6]
    assert float(mask_loss(prototypes, coeffs, masks, BOXES)[0]) != float(before[0])


def test_a_perfect_mask_costs_nothing() -> None:
    masks = torch.zeros(1, HEIGHT, WIDTH)
    masks[0, 2:6, 3:9] = 1
    prototypes = torch.stack([masks[0], 1 - masks[0]], dim=-1) * 50
    assert float(mask_loss(prototypes, torch.tensor([[9.0, -9.0]]), masks, BOXES[1:2])) < 1e-6
    assert float(mask_loss(prototypes, torch.tensor([[-9.0, 9.0]]), masks, BOXES[1:2])) == pytest.approx(50, abs=0.1)


def test_gradients_are_finite_where_everything_is_wrong() -> None:
    prototypes, coeffs, masks = (one.requires_grad_() for one in example())
    mask_loss(prototypes * 1e4, coeffs * 1e4, masks.detach().round(), BOXES).sum().backward()
    for one in (prototypes, coeffs):
        assert one.grad is not None and torch.isfinite(one.grad).all()


def test_a_box_outside_the_frame_and_no_objects() -> None:
    prototypes, coeffs, masks = example()
    assert mask_loss(prototypes, coeffs[:1], masks[:1], boxes_of([(3, 3, 4, 4)])).tolist() == [0]
    assert mask_loss(prototypes, coeffs[:0], masks[:0], BOXES[:0]).shape == (0,)
