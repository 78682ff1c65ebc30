"""With workers that only say that it is their turn."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stmask_deploy.bench import rounds
from stmask_deploy.bench.row import Job, Row
from stmask_deploy.errors import StmaskError

JOBS = [Job(Row("openvino", precision), Path("bundle"), Path("clip.mp4"), Path(precision), None, 1, 4, False)
        for precision in ("f32", "bf16")]


class StillWorker:
    """A turn is a number; rows in `failing` fail in their second turn."""

    turns: list[str]
    failing: tuple[str, ...] = ()

    def __init__(self, _make: Any, job: Any) -> None:
        self._name = job.row.precision if isinstance(job, Job) else f"ceiling {job.precision}"
        self.reason, self.facts, self.peak_bytes = "", {"flops": 1}, None

    def __enter__(self) -> StillWorker:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def turn(self) -> tuple[float] | None:
        if self._name in self.failing and self._name in self.turns:
            self.reason = "it is tired"
            return None
        self.turns.append(self._name)
        return (float(len(self.turns)),)


@pytest.fixture(autouse=True)
def turns(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    monkeypatch.setattr(StillWorker, "turns", names, raising=False)
    monkeypatch.setattr(rounds, "Worker", StillWorker)
    return names


def test_every_second_round_goes_backwards(turns: list[str]) -> None:
    rows, ceilings = rounds.measure(JOBS, 3, lambda _: None)
    order = ["f32", "bf16", "ceiling f32", "ceiling bf16"]
    assert turns == order + order[::-1] + order
    assert [samples.turns for samples in ceilings] == [((3.0,), (6.0,), (11.0,)), ((4.0,), (5.0,), (12.0,))]
    assert [samples.job for samples in rows] == JOBS


def test_a_row_that_fails_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(StillWorker, "failing", ("f32",))
    rows, _ = rounds.measure(JOBS, 3, lambda _: None)
    assert [samples.reason for samples in rows] == ["it is tired", ""]
    assert [len(samples.turns) for samples in rows] == [1, 3]


def test_when_the_last_row_has_failed_it_ends(monkeypatch: pytest.MonkeyPatch, turns: list[str]) -> None:
    monkeypatch.setattr(StillWorker, "failing", ("f32", "bf16"))
    with pytest.raises(StmaskError, match="no row can be measured: openvino:f32: it is tired; openvino:bf16: it is"):
        rounds.measure(JOBS, 9, lambda _: None)
    assert turns.count("ceiling f32") == 2
