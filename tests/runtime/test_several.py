"""Several sources: how many run at the same time, and how each of them ends."""
from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from threads import no_thread_left

from stmask_deploy.runtime.interrupt import InterruptFlag
from stmask_deploy.runtime.several import Job, Outcome, run_several

TIMEOUT = 10


@pytest.fixture(autouse=True)
def usual_handler() -> Iterator[None]:
    """A background job starts with Ctrl-C ignored; here it shall mean what it means at a terminal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def outcomes(sources: Sequence[str], work: Callable[[str, InterruptFlag], Any], parallel: int) -> list[Outcome]:
    """`run_several` of runs that are `work`; what it returns stands for a summary."""
    def prepare(source: str) -> Job:
        if source.startswith("unreadable"):
            raise ValueError(source)
        return lambda interrupt: work(source, interrupt)

    with no_thread_left():
        return list(run_several(sources, prepare, parallel))


@pytest.mark.parametrize("parallel", [1, 2, 3, 7])
def test_as_many_as_asked_for_run_at_the_same_time(parallel: int) -> None:
    together = threading.Barrier(parallel)  # passed only by that many at once
    lock, running, most = threading.Lock(), [0], [0]

    def work(source: str, _: InterruptFlag) -> str:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        together.wait(TIMEOUT)
        with lock:
            running[0] -= 1
        return source

    names = [f"{index}" for index in range(2 * parallel)]
    found = outcomes(names, work, parallel)
    assert most[0] == parallel
    assert sorted((one.position, one.source, one.result) for one in found) == [(i, n, n) for i, n in enumerate(names)]


def test_one_at_a_time_keeps_the_order() -> None:
    found = outcomes("abc", lambda source, _: source, 1)
    assert [one.result for one in found] == ["a", "b", "c"]


@pytest.mark.parametrize("parallel", [1, 2, 4])
def test_a_failure_is_the_outcome_of_its_source_alone(parallel: int) -> None:
    def work(source: str, _: InterruptFlag) -> str:
        if source == "broken":
            raise KeyError(source)
        return source

    found = {one.source: one.result for one in outcomes(["a", "unreadable", "broken", "b"], work, parallel)}
    assert (found["a"], found["b"]) == ("a", "b")
    assert isinstance(found["unreadable"], ValueError) and isinstance(found["broken"], KeyError)


def test_a_long_run_does_not_keep_the_short_ones_waiting() -> None:
    short_ones_are_done = threading.Event()

    def work(source: str, _: InterruptFlag) -> str:
        if source == "long":
            assert short_ones_are_done.wait(TIMEOUT)
        elif source == "c":
            short_ones_are_done.set()
        return source

    found = outcomes(["long", "a", "b", "c"], work, 2)
    assert [one.source for one in found][:2] == ["a", "b"]
    assert {one.result for one in found} == {"long", "a", "b", "c"}


@pytest.mark.parametrize("parallel", [1, 2])
def test_ctrl_c_ends_what_runs_and_starts_nothing_more(parallel: int) -> None:
    started: list[str] = []
    all_started = threading.Barrier(parallel)

    def work(source: str, interrupt: InterruptFlag) -> str:
        started.append(source)
        if all_started.wait(TIMEOUT) == 0:
            os.kill(os.getpid(), signal.SIGINT)
        while not interrupt.is_set:
            threading.Event().wait(0.01)
        return f"{source}, interrupted"

    found = outcomes("abcd", work, parallel)
    assert sorted(started) == list("abcd")[:parallel]
    assert sorted(str(one.result) for one in found) == [f"{name}, interrupted" for name in sorted(started)]


def test_no_sources() -> None:
    assert outcomes([], lambda source, _: source, 1) == []
