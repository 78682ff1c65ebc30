"""Mean losses and the time they took, also over an interruption."""
from __future__ import annotations

import pytest
import torch

from stmask_deploy.training import loss_means
from stmask_deploy.training.loss_means import LossMeans


class Clock:
    """Stands for the module `time`."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    monkeypatch.setattr(loss_means, "time", Clock())
    return loss_means.time


def add(means: LossMeans, clock: Clock, value: float, seconds: float) -> None:
    clock.now += seconds
    means.add({"total": torch.tensor(value), "masks": torch.tensor(value / 2)})


def test_means_and_seconds_since_they_were_taken(clock: Clock) -> None:
    means = LossMeans("cpu")
    add(means, clock, 1.0, 2)
    add(means, clock, 4.0, 3)
    assert means.count == 2 and means.take() == ({"total": 2.5, "masks": 1.25}, 5)
    add(means, clock, 6.0, 1)
    assert means.count == 1 and means.take() == ({"total": 6.0, "masks": 3.0}, 1)


def test_a_validation_is_left_out(clock: Clock) -> None:
    means = LossMeans("cpu")
    add(means, clock, 1.0, 2)
    with pytest.raises(KeyboardInterrupt), means.left_out():
        clock.now += 1000
        raise KeyboardInterrupt
    add(means, clock, 2.0, 3)
    assert means.take() == ({"total": 1.5, "masks": 0.75}, 5)


def test_resumed_they_go_on(clock: Clock) -> None:
    before, after = LossMeans("cpu"), LossMeans("cpu")
    add(before, clock, 1.0, 2)
    state = before.state()
    clock.now += 1000
    after.resume(state)
    add(after, clock, 2.0, 3)
    assert after.count == 2 and after.take() == ({"total": 1.5, "masks": 0.75}, 5)
