"""Measures all rows and ceilings in alternating turns."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from stmask_deploy.errors import StmaskError

from .alternation import back_and_forth
from .bundle_run import Turn, open_run
from .ceiling import CeilingJob, open_ceiling
from .row import Job
from .worker import Worker

Say = Callable[[str], None]


@dataclass(frozen=True)
class RowSamples:
    """What a row measured in all rounds."""

    job: Job
    reason: str  # why it could not be measured; empty if it was
    device: str  # what its graphs ran on, in words
    startup_s: float  # from opening the bundle to the first result, including loading the backend's library
    peak_bytes: int | None
    turns: tuple[Turn, ...]


@dataclass(frozen=True)
class CeilingSamples:
    """What the plain convolutions of a backend measured in all rounds."""

    job: CeilingJob
    reason: str
    flops: int  # per run
    turns: tuple[tuple[float, ...], ...]  # seconds per run


@dataclass
class _Place:
    """A subject in the rotation, with its results so far."""

    worker: Worker
    turns: list[Any] = field(default_factory=list)

    def take_turn(self) -> None:
        answer = self.worker.turn()
        if answer is not None:
            self.turns.append(answer)


def measure(jobs: Sequence[Job], rounds: int, say: Say) -> tuple[list[RowSamples], list[CeilingSamples]]:
    """Measure all rows, each in its own process, in alternating turns; every second round runs in reverse order.

    Args:
        jobs: the rows.
        rounds: turns of each row.
        say: called with one line of progress at a time.

    Raises:
        StmaskError: no row can be measured.
    """
    with ExitStack() as stack:
        rows = []
        for job in jobs:
            say(f"opening {job.row}")
            rows.append(_Place(stack.enter_context(Worker(open_run, job))))
        available = _available(jobs, rows)
        ceiling_jobs = list(dict.fromkeys(CeilingJob(job.row.backend, job.row.precision, job.row.device, job.threads)
                                          for job in available))
        ceilings = [_Place(stack.enter_context(Worker(open_ceiling, job))) for job in ceiling_jobs]
        for number, places in enumerate(back_and_forth(rows + ceilings, rounds), 1):
            say(f"round {number} of {rounds}")
            for place in places:
                place.take_turn()
            _available(jobs, rows)
        return ([_row_samples(job, place) for job, place in zip(jobs, rows, strict=True)],
                [CeilingSamples(job, place.worker.reason, place.worker.facts.get("flops", 0),
                                tuple(tuple(turn) for turn in place.turns))
                 for job, place in zip(ceiling_jobs, ceilings, strict=True)])


def _available(jobs: Sequence[Job], rows: Sequence[_Place]) -> list[Job]:
    """The rows that nothing has kept from being measured so far, at least one."""
    available = [job for job, place in zip(jobs, rows, strict=True) if not place.worker.reason]
    if not available:
        raise StmaskError("no row can be measured: " + "; ".join(
            f"{job.row}: {place.worker.reason}" for job, place in zip(jobs, rows, strict=True)))
    return available


def _row_samples(job: Job, place: _Place) -> RowSamples:
    facts = place.worker.facts
    return RowSamples(job, place.worker.reason, facts.get("device", ""), facts.get("startup_s", 0.0),
                      place.worker.peak_bytes, tuple(place.turns))
