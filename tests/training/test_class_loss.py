"""Classification with hard negatives, against sorting by hand."""
from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from stmask_deploy.training.class_loss import class_loss
from stmask_deploy.training.matching import BACKGROUND, NEUTRAL


def example(positives: int, negatives: int, neutral: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    count = positives + negatives + neutral
    classes = torch.tensor([1 + row % 3 for row in range(positives)] + [BACKGROUND] * negatives + [NEUTRAL] * neutral,
                           dtype=torch.int64)
    order = torch.randperm(count, generator=generator)
    return torch.randn(count, 4, generator=generator).mul(2).softmax(dim=-1), classes[order]


def loss_by_sorting(probs: Tensor, classes: Tensor) -> float:
    rows = list(zip(probs.tolist(), classes.tolist(), strict=True))
    positives = [-math.log(row[label]) for row, label in rows if label > 0]
    negatives = sorted((-math.log(row[0]) for row, label in rows if label == BACKGROUND), reverse=True)
    return sum(positives) + sum(negatives[:3 * max(len(positives), 1)])


@pytest.mark.parametrize(("positives", "negatives", "neutral"), [
    (4, 40, 10),  # more negatives than are taken
    (10, 12, 5),  # fewer
    (3, 0, 7),  # none
    (0, 20, 4),  # no objects: three negatives
    (0, 2, 0),
    (0, 0, 6),  # everything ignored
    (0, 0, 0),
])
def test_against_sorting(positives: int, negatives: int, neutral: int) -> None:
    probs, classes = example(positives, negatives, neutral)
    assert float(class_loss(probs, classes)) == pytest.approx(loss_by_sorting(probs, classes), rel=1e-5, abs=1e-6)


def test_by_hand() -> None:
    probs = torch.tensor([[0.2, 0.7, 0.1], [0.9, 0.05, 0.05], [0.5, 0.5, 0.0], [0.6, 0.2, 0.2], [0.8, 0.1, 0.1],
                          [0.1, 0.9, 0.0]])
    classes = torch.tensor([1, -1, -1, -1, -1, -2])  # of four negatives the easiest (0.9) is left out
    assert float(class_loss(probs, classes)) == pytest.approx(-math.log(0.7 * 0.5 * 0.6 * 0.8), abs=1e-5)


def test_only_the_anchors_that_count_learn() -> None:
    probs, classes = example(2, 30, 5)
    probs.requires_grad_()
    class_loss(probs, classes).backward()
    assert probs.grad is not None
    taught = probs.grad.abs().sum(dim=1) > 0
    assert int(taught.sum()) == 2 + 6
    assert bool(taught[classes > 0].all()) and not bool(taught[classes == NEUTRAL].any())


def test_certainty_of_the_wrong_is_finite() -> None:
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0], [200.0, 0.0]], requires_grad=True)
    loss = class_loss(logits.softmax(dim=-1), torch.tensor([1, BACKGROUND, BACKGROUND]))
    loss.backward()
    assert torch.isfinite(loss) and logits.grad is not None and torch.isfinite(logits.grad).all()
