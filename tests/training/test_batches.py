from __future__ import annotations

import pytest
from tiny_training import ALONE

from stmask_deploy.training.batches import Batches
from stmask_deploy.training.processes import Process


@pytest.mark.parametrize("start", [0, 3])
def test_batches_share_the_samples_out(start: int) -> None:
    processes = [list(Batches(start, 5, 2, Process(rank, 3, "cpu"))) for rank in range(3)]
    assert all(len(batches) == 5 - start == len(Batches(start, 5, 2, ALONE)) for batches in processes)
    in_order = [index for iteration in zip(*processes, strict=True) for batch in iteration for index in batch]
    assert in_order == list(range(start * 6, 30))


def test_nothing_is_left_of_a_finished_schedule() -> None:
    assert list(Batches(5, 5, 2, ALONE)) == [] and len(Batches(5, 5, 2, ALONE)) == 0
