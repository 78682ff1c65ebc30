"""Embeddings of one identity together, of others apart: by hand and in loops."""
from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stmask_deploy.training.embedding_loss import embedding_loss


def loss_in_loops(embeddings: Tensor, track_ids: Tensor, frames: Tensor) -> float:
    groups = sorted({(int(track), int(frame)) for track, frame in zip(track_ids, frames, strict=True)})
    together, apart = [], []
    for group in groups:
        members = [row for row in range(len(embeddings)) if (int(track_ids[row]), int(frames[row])) == group]
        mean = embeddings[members].double().mean(dim=0)
        for row in range(len(embeddings)):
            cosine = float(embeddings[row].double() @ mean / mean.norm())
            if int(track_ids[row]) == group[0]:
                together.append(1 - cosine)
            else:
                apart.append(max(0.0, cosine))
    return sum(together) / len(together) + (sum(apart) / len(apart) if apart else 0)


@pytest.mark.parametrize("seed", range(3))
def test_against_loops(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    embeddings = F.normalize(torch.randn(30, 6, generator=generator), dim=1)
    ids = torch.randint(10, 14, (30,), generator=generator)
    frames = torch.randint(0, 2, (30,), generator=generator)
    assert float(embedding_loss(embeddings, ids, frames)) == pytest.approx(loss_in_loops(embeddings, ids, frames))


def test_by_hand() -> None:
    # One anchor of object 7 in each frame, 60 degrees apart; object 9 at 30 degrees from the first, 90 from the second.
    angles = torch.tensor([0.0, 60.0, -30.0]).deg2rad()
    embeddings = torch.stack([angles.cos(), angles.sin()], dim=1)
    found = embedding_loss(embeddings, torch.tensor([7, 7, 9]), torch.tensor([0, 1, 1]))
    together = [0, 0.5, 0.5, 0, 0]  # 1 - cos to the own means: 7 in both frames twice, 9 once
    apart = [math.cos(math.radians(30)), 0, math.cos(math.radians(30)), 0]
    assert float(found) == pytest.approx(sum(together) / 5 + sum(apart) / 4, abs=1e-6)


def test_one_direction_an_object_costs_nothing() -> None:
    embeddings = torch.eye(3)[[0, 0, 1, 1, 2]]
    assert float(embedding_loss(embeddings, torch.tensor([1, 1, 2, 2, 3]), torch.tensor([0, 1, 0, 1, 1]))) == 0


def test_one_object_has_nobody_to_be_apart_from() -> None:
    angles = torch.tensor([0.0, 90.0]).deg2rad()
    embeddings = torch.stack([angles.cos(), angles.sin()], dim=1)
    one_frame = embedding_loss(embeddings, torch.tensor([4, 4]), torch.tensor([0, 0]))
    assert float(one_frame) == pytest.approx(1 - math.cos(math.radians(45)))


def test_no_anchors() -> None:
    embeddings = torch.zeros(0, 5, requires_grad=True)
    loss = embedding_loss(embeddings, torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert float(loss.detach()) == 0


def test_opposite_embeddings_of_one_object_give_finite_gradients() -> None:
    raw = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]], requires_grad=True)  # their mean has no direction
    embedding_loss(F.normalize(raw, dim=1), torch.tensor([1, 1, 2]), torch.tensor([0, 0, 0])).backward()
    assert raw.grad is not None and torch.isfinite(raw.grad).all()
