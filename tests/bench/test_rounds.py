"""With workers that only say that it is their turn."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stmask_deploy.bench import rounds
from stmask_deploy.bench.row import Job, Row


def test_every_second_round_goes_backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    turns: list[str] = []

    class Worker:
        reason, facts, peak_bytes = "", {"flops": 1}, None

        def __init__(self, _make: Any, job: Any) -> None:
            self._name = job.row.precision if isinstance(job, Job) else f"ceiling {job.precision}"

        def __enter__(self) -> Worker:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def turn(self) -> tuple[float]:
            turns.append(self._name)
            return (float(len(turns)),)

    monkeypatch.setattr(rounds, "Worker", Worker)
    jobs = [Job(Row("openvino", precision), Path("bundle"), Path("clip.mp4"), Path(precision), None, 1, 4, False)
            for precision in ("f32", "bf16")]
    rows, ceilings = rounds.measure(jobs, 3, lambda _: None)
    order = ["f32", "bf16", "ceiling f32", "ceiling bf16"]
    assert turns == order + order[::-1] + order
    assert [samples.turns for samples in ceilings] == [((3.0,), (6.0,), (11.0,)), ((4.0,), (5.0,), (12.0,))]
    assert [samples.job for samples in rows] == jobs
