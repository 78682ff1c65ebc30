"""Processes: what they answer, how they fail, that none is left."""
from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from stmask_deploy.bench import worker
from stmask_deploy.bench.worker import Worker, peak_memory
from stmask_deploy.errors import InputError


class Counting:
    def __init__(self, job: str) -> None:
        self.facts: Mapping[str, Any] = {"pid": os.getpid()}
        self._job, self._turns = job, 0

    def turn(self) -> int:
        self._turns += 1
        if self._job == "fails" and self._turns == 2:
            raise ZeroDivisionError("by zero")
        if self._job == "dies":
            os._exit(7)
        return self._turns


@contextmanager
def open_counting(job: str) -> Iterator[Counting]:
    if job == "refused":
        raise InputError("no such bundle; give another one")
    if job == "is deaf":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield Counting(job)


def test_turns_are_taken_in_another_process() -> None:
    with Worker(open_counting, "counts") as worker:
        assert worker.facts["pid"] != os.getpid()
        assert [worker.turn(), worker.turn()] == [1, 2]
        assert worker.reason == ""
        assert worker.peak_bytes is None or worker.peak_bytes > 1e6
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("job, turns, told", [
    ("refused", [None, None], "no such bundle; give another one"),
    ("fails", [1, None], "ZeroDivisionError: by zero"),
    ("dies", [None, None], "its process ended with exit code 7"),
])
def test_a_row_that_fails_says_why_and_stops(job: str, turns: list[int | None], told: str) -> None:
    with Worker(open_counting, job) as worker:
        assert [worker.turn(), worker.turn()] == turns
        assert worker.reason == told
    assert multiprocessing.active_children() == []


def test_ctrl_c_is_left_to_the_parent() -> None:
    with Worker(open_counting, "counts") as worker:
        os.kill(worker.facts["pid"], signal.SIGINT)
        assert [worker.turn(), worker.turn()] == [1, 2] and worker.reason == ""


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="the system has no signal masks")
def test_ctrl_c_waits_while_a_process_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which it inherits; otherwise it would print a traceback until it can ignore Ctrl-C."""
    started: list[set[int]] = []
    start = multiprocessing.process.BaseProcess.start

    def noted(process: multiprocessing.process.BaseProcess) -> None:
        started.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        start(process)

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", noted)
    with Worker(open_counting, "counts"):
        assert signal.SIGINT in started[0] and signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


def kill_the_process() -> None:
    """As the kernel does where memory is short."""
    (process,) = multiprocessing.active_children()
    process.kill()
    process.join()


def test_a_row_whose_process_dies_while_others_have_their_turn_says_so_and_stops() -> None:
    with Worker(open_counting, "counts") as worker:
        assert worker.turn() == 1
        kill_the_process()
        assert [worker.turn(), worker.turn()] == [None, None]
        assert worker.reason.startswith("its process ended with exit code ")
    assert multiprocessing.active_children() == []


def test_a_process_that_dies_after_its_last_turn_takes_nothing_along() -> None:
    with Worker(open_counting, "counts") as worker:
        assert worker.turn() == 1
        kill_the_process()
        assert worker.reason == ""


ORPHAN = """
import os, sys, threading, time
from contextlib import contextmanager
from stmask_deploy.bench.worker import Worker

class Slow:
    facts = {}
    def turn(self):
        time.sleep(1)
        return 1

@contextmanager
def open_slow(job):
    yield Slow()

if __name__ == "__main__":
    worker = Worker(open_slow, "")
    threading.Timer(0.3, lambda: os._exit(3)).start()
    worker.turn()
"""


def test_a_process_whose_parent_is_killed_ends_without_a_word(tmp_path: Path) -> None:
    script = tmp_path / "orphan.py"
    script.write_text(ORPHAN, encoding="utf-8")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)  # until both ended
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "")


def test_a_turn_that_does_not_end_when_told_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_PATIENCE_STOPPED", 0.2)
    start_s = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Worker(open_counting, "is deaf") as deaf:
        deaf._send("turn")
        start_s = time.monotonic()
        raise KeyboardInterrupt
    assert multiprocessing.active_children() == [] and time.monotonic() - start_s < 9


def test_no_process_outlives_an_exception() -> None:
    with pytest.raises(KeyboardInterrupt), Worker(open_counting, "counts"):
        raise KeyboardInterrupt
    assert multiprocessing.active_children() == []


def test_peak_memory_grows_with_what_is_used() -> None:
    before = peak_memory()
    if before is None:
        pytest.skip("this system does not tell")
    taken = b"x" * 300_000_000
    after = peak_memory()
    assert after is not None and len(taken) > 0
    assert after >= max(before, 300_000_000)


@contextmanager
def open_folder(folder: Path) -> Iterator[Counting]:
    folder.mkdir()
    try:
        yield Counting("counts")
    finally:
        folder.rmdir()


def test_what_a_subject_has_opened_is_closed_at_the_end(tmp_path: Path) -> None:
    with Worker(open_folder, tmp_path / "folder") as worker:
        assert worker.turn() == 1
    assert list(tmp_path.iterdir()) == [] and multiprocessing.active_children() == []


def test_what_a_subject_has_opened_is_closed_where_the_parent_fails(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), Worker(open_folder, tmp_path / "folder"):
        assert (tmp_path / "folder").is_dir()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == [] and multiprocessing.active_children() == []
