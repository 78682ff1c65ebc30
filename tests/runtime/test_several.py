"""Several sources: how many run at the same time, and how each of them ends."""
from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from threads import no_thread_left

from stmask_deploy.runtime.interrupt import InterruptFlag
from stmask_deploy.runtime.several import Job, Outcome, run_several
from stmask_deploy.workers import WORKER_NAME

TIMEOUT = 10


@pytest.fixture(autouse=True)
def usual_handler(interrupts_as_before: None) -> None:
    """A background job starts with Ctrl-C ignored; here it shall mean what it means at a terminal."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def outcomes(sources: Sequence[str], work: Callable[[str, InterruptFlag], Any], parallel: int) -> list[Outcome]:
    """`run_several` of runs that are `work`; what it returns stands for a summary."""
    def prepare(source: str, _: InterruptFlag) -> Job:
        if source.startswith("unreadable"):
            raise ValueError(source)
        return lambda interrupt: work(source, interrupt)

    with no_thread_left():
        return list(run_several(sources, prepare, parallel))


def wait_for(interrupt: InterruptFlag) -> None:
    deadline = time.monotonic() + TIMEOUT
    while not interrupt.is_set:
        assert time.monotonic() < deadline
        time.sleep(0.01)


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
        wait_for(interrupt)
        return f"{source}, interrupted"

    found = outcomes("abcd", work, parallel)
    assert sorted(started) == list("abcd")[:parallel]
    assert sorted(str(one.result) for one in found) == [f"{name}, interrupted" for name in sorted(started)]


def test_a_second_ctrl_c_waits_for_nothing() -> None:
    end, noted = threading.Event(), threading.Event()

    def hang(interrupt: InterruptFlag) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        wait_for(interrupt)
        noted.set()
        os.kill(os.getpid(), signal.SIGINT)
        assert end.wait(TIMEOUT)

    with no_thread_left():
        with pytest.raises(KeyboardInterrupt):
            list(run_several(["camera"], lambda *_: hang, 1))
        assert noted.is_set()
        workers = [thread for thread in threading.enumerate() if thread.name == WORKER_NAME]
        assert [thread.daemon for thread in workers] == [True]
        end.set()
        workers[0].join(TIMEOUT)


def test_an_interrupt_while_a_source_is_opened() -> None:
    def prepare(source: str, interrupt: InterruptFlag) -> Job:
        if source == "slow":
            os.kill(os.getpid(), signal.SIGINT)
            wait_for(interrupt)
            raise OSError("stopped")
        return lambda _: source

    assert [found.source for found in run_several(["quick", "slow", "never"], prepare, 2)] == ["quick"]


def test_a_reader_that_goes_away_ends_the_runs_first() -> None:
    ended: list[str] = []

    def job(source: str, _: InterruptFlag) -> Job:
        def work(interrupt: InterruptFlag) -> Any:
            if source != "short":
                wait_for(interrupt)
            ended.append(source)

        return work

    with no_thread_left():
        running = run_several(["long", "short", "never"], job, 2)
        assert next(running).source == "short"
        running.close()
    assert ended == ["short", "long"]


class SlowToFree:
    """A run whose memory takes its time to be freed, as that of a graph."""

    def __call__(self, _: InterruptFlag) -> Any:
        time.sleep(0.1)  # until the others have been started
        return "done"

    def __del__(self) -> None:
        time.sleep(0.2)


@pytest.mark.parametrize("parallel", [1, 3])
def test_nothing_is_still_being_freed_when_the_last_outcome_is_known(parallel: int) -> None:
    for count, _ in enumerate(run_several("abc", lambda *_: SlowToFree(), parallel), start=1):
        busy = [thread for thread in threading.enumerate() if thread.name == WORKER_NAME]
        assert len(busy) <= 3 - count
    assert not busy


def test_no_sources() -> None:
    assert outcomes([], lambda source, _: source, 1) == []
