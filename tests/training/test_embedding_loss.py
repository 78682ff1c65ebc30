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
    means = {group: sum(embeddings[row].double() for row in range(len(embeddings))
                        if (int(track_ids[row]), int(frames[row])) == group) for group in groups}
    costs = []
    for row in range(len(embeddings)):
        cosines = {group: float(embeddings[row].double() @ mean / mean.norm()) for group, mean in means.items()}
        others = sum(math.exp(value / 0.1) for (track, _), value in cosines.items() if track != int(track_ids[row]))
        for (track, _), value in cosines.items():
            if track == int(track_ids[row]):
                chance = math.exp(value / 0.1) / (math.exp(value / 0.1) + others)
                costs.append(1 - value - math.log(chance))
    return sum(costs) / len(costs)


@pytest.mark.parametrize("seed", range(3))
def test_against_loops(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    embeddings = F.normalize(torch.randn(30, 6, generator=generator), dim=1)
    ids = torch.randint(10, 14, (30,), generator=generator)
    frames = torch.randint(0, 4, (30,), generator=generator)
    assert float(embedding_loss(embeddings, ids, frames)) == pytest.approx(loss_in_loops(embeddings, ids, frames))


def test_by_hand() -> None:
    # One anchor of object 7 in each frame, 60 degrees apart; object 9 at 30 degrees from the first, 90 from the second.
    angles = torch.tensor([0.0, 60.0, -30.0]).deg2rad()
    embeddings = torch.stack([angles.cos(), angles.sin()], dim=1)
    found = embedding_loss(embeddings, torch.tensor([7, 7, 9]), torch.tensor([0, 1, 1]))
    near = math.cos(math.radians(30))
    pairs = [(1, [near]), (0.5, [near]), (0.5, [0]), (1, [0]), (1, [near, 0])]  # cosine to an own mean; to all others'
    costs = [1 - own + math.log1p(sum(math.exp(10 * (other - own)) for other in others)) for own, others in pairs]
    assert float(found) == pytest.approx(sum(costs) / 5, rel=1e-5)


def test_one_direction_an_object_costs_next_to_nothing() -> None:
    embeddings = torch.eye(3)[[0, 0, 1, 1, 2]]
    found = float(embedding_loss(embeddings, torch.tensor([1, 1, 2, 2, 3]), torch.tensor([0, 1, 0, 1, 1])))
    assert 0 < found < 4 * math.exp(-10)


def test_the_most_alike_of_the_others_is_pushed_hardest() -> None:
    raw = torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.1, 0.0, 0.995], [0.0, 0.6, -0.8]], requires_grad=True)
    anchor = F.normalize(raw, dim=1)
    embedding_loss(torch.cat([anchor[:1], anchor[1:].detach()]), torch.arange(4), torch.zeros(4).long()).backward()
    assert raw.grad is not None
    pushed = -raw.grad[0]  # where a step of descent goes
    assert pushed[1] < 0 and abs(pushed[2]) < 0.02 * abs(pushed[1])


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
