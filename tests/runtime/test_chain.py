"""Stages in threads: the order of a plain loop, bounded, and no thread left however it ends."""
from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import closing

import pytest
from threads import no_thread_left

from stmask_deploy.runtime.chain import GRACE_S, Chain
from stmask_deploy.runtime.interrupt import InterruptFlag
from stmask_deploy.workers import WORKER_NAME

DEPTH = 2
TIMEOUT = 10


class Numbers:
    """Counts up; remembers how far, and whether it was closed."""

    def __init__(self, count: int, fails_at: int | None = None) -> None:
        self.made = 0
        self.is_closed = False
        self._count, self._fails_at = count, fails_at

    def items(self) -> Generator[int, None, None]:
        try:
            for number in range(self._count):
                if number == self._fails_at:
                    raise KeyError(number)
                self.made += 1
                yield number
        finally:
            self.is_closed = True


def doubled(items: Iterator[int]) -> Generator[int, None, None]:
    for item in items:
        yield 2 * item


def chain(numbers: Numbers, function: Callable[[int], int] = int, workers: int = 3) -> Generator[int, None, None]:
    with Chain(DEPTH) as chain:
        yield from chain.ahead(doubled(chain.ahead(chain.map(function, chain.ahead(numbers.items()), workers))))


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_everything_in_order(count: int, workers: int) -> None:
    def uneven(item: int) -> int:
        time.sleep(0.002 * (item % 3 == 0))
        return item + 1

    numbers = Numbers(count)
    with no_thread_left():
        assert list(chain(numbers, uneven, workers)) == [2 * (item + 1) for item in range(count)]
    assert numbers.is_closed


def test_each_stage_has_a_thread_of_its_own() -> None:
    used = set()

    def note(item: int) -> int:
        used.add(threading.current_thread())
        barrier.wait(timeout=10)  # passed only when two workers are inside at once
        return item

    barrier = threading.Barrier(2)
    assert list(chain(Numbers(4), note, workers=2)) == [0, 2, 4, 6]
    assert len(used) == 2 and threading.current_thread() not in used


def test_no_stage_runs_far_ahead() -> None:
    numbers = Numbers(1000)
    with no_thread_left():
        items = chain(numbers, workers=1)
        next(items)
        before = -1
        while numbers.made != before:
            before = numbers.made
            time.sleep(0.05)
        # One is taken. Three stages hold one each, with DEPTH more between each of them and its reader.
        assert 1 < numbers.made <= 1 + 3 * (DEPTH + 1)
        items.close()


def fail_at_five(item: int) -> int:
    if item == 5:
        raise KeyError(item)
    return item


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("place", ["source", "stage"])
def test_an_exception_comes_behind_the_items_before_it(place: str, workers: int) -> None:
    numbers = Numbers(20, fails_at=5 if place == "source" else None)
    seen: list[int] = []
    with no_thread_left(), pytest.raises(KeyError, match="5"):
        for item in chain(numbers, fail_at_five if place == "stage" else int, workers):
            seen.append(item)
    assert seen == [0, 2, 4, 6, 8] and numbers.is_closed


def test_the_very_exception_arrives() -> None:
    error = ValueError("this one")

    def fail(_item: int) -> int:
        raise error

    with pytest.raises(ValueError) as caught:
        list(chain(Numbers(3), fail))
    assert caught.value is error


@pytest.mark.parametrize("place", ["source", "stage"])
def test_what_failed_leaves_memory_without_the_collector(place: str) -> None:
    def fail(numbers: Numbers) -> None:
        with pytest.raises(KeyError, match="5"):
            list(chain(numbers, fail_at_five if place == "stage" else int))

    numbers = Numbers(20, fails_at=5 if place == "source" else None)
    left = weakref.ref(numbers)
    gc.disable()
    try:
        fail(numbers)
        del numbers
        assert left() is None
    finally:
        gc.enable()


def test_workers_end_with_their_stage() -> None:
    def slow(item: int) -> int:
        time.sleep(0.1)
        return item

    with Chain(DEPTH) as chain:
        results = chain.map(slow, iter(range(20)), 3)
        assert next(results) == 0 and len(chain._threads) == 3
        results.close()
        assert not any(thread.is_alive() for thread in chain._threads)


def test_threads_go_on_after_the_main_thread() -> None:
    program = """
import threading, time
from stmask_deploy.runtime.chain import Chain

def work():
    with Chain(2) as chain:
        for item in chain.map(lambda item: time.sleep(0.05) or item, iter(range(12)), 3):
            print(item, flush=True)

threading.Thread(target=work).start()
time.sleep(0.1)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout.split(), done.stderr) == ([str(item) for item in range(12)], "")


@pytest.mark.parametrize("taken", [0, 1, 7])
def test_leaving_in_the_middle(taken: int) -> None:
    numbers = Numbers(10_000)
    with no_thread_left():
        items = chain(numbers)
        for _ in range(taken):
            next(items)
        items.close()
    assert numbers.made < 100 and numbers.is_closed is (taken > 0)


def test_an_exception_of_the_reader() -> None:
    with no_thread_left(), pytest.raises(RuntimeError, match="disk full"), Chain(DEPTH) as chain:
        for _ in chain.ahead(Numbers(10_000).items()):
            raise RuntimeError("disk full")


@pytest.mark.parametrize("workers", [None, 2])
def test_one_of_its_own_threads_may_leave_it(workers: int | None) -> None:
    """As the garbage collector does with an abandoned chain, in whatever thread it happens to run."""
    chain = Chain(DEPTH)

    def leave(item: int) -> int:
        chain.__exit__(None, None, None)
        return item

    with no_thread_left():
        items = Numbers(10).items()
        stage = (leave(item) for item in items) if workers is None else chain.map(leave, items, workers)
        assert len(list(chain.ahead(stage))) < 10
        chain.__exit__(None, None, None)


class Held:
    """One item, and then a read that takes until `let_go`."""

    def __init__(self, event: Callable[[], None] = lambda: None) -> None:
        self.end = threading.Event()
        self._event = event
        self._before = set(threading.enumerate())

    def items(self) -> Generator[int, None, None]:
        yield 0
        self._event()
        assert self.end.wait(TIMEOUT)
        yield 1

    def let_go(self) -> list[tuple[str, bool]]:
        """Names of the threads that were left behind, and whether they are daemons; afterwards they are gone."""
        left = [thread for thread in threading.enumerate() if thread not in self._before]
        told = [(thread.name, thread.daemon) for thread in left]
        self.end.set()
        for thread in left:
            thread.join(TIMEOUT)
        return told


def press_later() -> None:
    """Ctrl-C when the main thread waits for the others."""
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGINT)


def watched(numbers: Numbers, function: Callable[[int], int]) -> Generator[int, None, None]:
    """A chain as `chain`, known to its threads."""
    def read() -> Generator[int, None, None]:
        with chain:
            yield from chain.ahead(doubled(chain.ahead(chain.map(function, chain.ahead(numbers.items()), 3))))

    chain = Chain(DEPTH)
    reader = read()
    chain.watch(reader)
    return reader


def around(items: Generator[int, None, None]) -> Generator[int, None, None]:
    """Closes the items itself."""
    with closing(items):
        yield from items


def wait_for_the_end_of(threads: Callable[[], set[threading.Thread]]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not threads()


@pytest.mark.parametrize("layers", [0, 2])
def test_the_collector_waits_for_no_thread(layers: int) -> None:
    """Whoever collects an abandoned chain may hold what its threads are waiting for."""
    lock, is_held, is_waiting, is_done = threading.Lock(), threading.Event(), threading.Event(), threading.Event()
    numbers = Numbers(1000)
    names: list[str] = []

    def locked(item: int) -> int:
        if item:
            assert is_held.wait(TIMEOUT)
            is_waiting.set()
        with lock:
            return item

    def work() -> None:
        reader = watched(numbers, locked)
        for _ in range(layers):
            reader = around(reader)
        cycle: list[object] = [reader]
        cycle.append(cycle)
        assert next(reader) == 0
        with lock:
            is_held.set()
            is_waiting.wait(TIMEOUT)
            del cycle, reader
            gc.collect()
            names.extend(thread.name for thread in set(threading.enumerate()) - before - {threading.current_thread()})
            is_done.set()

    before = set(threading.enumerate())
    gc.disable()  # so that it is collected there
    try:
        threading.Thread(target=work, daemon=True).start()
        assert is_done.wait(TIMEOUT)
    finally:
        gc.enable()
    assert is_waiting.is_set() and WORKER_NAME in names
    wait_for_the_end_of(lambda: set(threading.enumerate()) - before)
    assert numbers.is_closed


def test_a_chain_that_is_dropped_is_waited_for() -> None:
    numbers = Numbers(1000)
    with no_thread_left():
        reader = around(watched(numbers, lambda item: time.sleep(0.02) or item))
        next(reader)
        del reader
    assert numbers.is_closed


def test_ctrl_c_waits_for_no_thread() -> None:
    held = Held()
    with no_thread_left():
        with pytest.raises(KeyboardInterrupt), Chain(1) as chain:
            assert next(chain.ahead(held.items())) == 0
            raise KeyboardInterrupt
        assert held.let_go() == [(WORKER_NAME, True)]


def test_ctrl_c_of_the_reader_waits_for_no_thread() -> None:
    """It closes the chain by an exception of another kind."""
    def stages() -> Generator[int, None, None]:
        with Chain(1) as chain:
            yield from chain.ahead(held.items())

    held = Held()
    with no_thread_left():
        with pytest.raises(KeyboardInterrupt), closing(stages()) as items:
            assert next(items) == 0
            raise KeyboardInterrupt
        assert held.let_go() == [(WORKER_NAME, True)]


def test_ctrl_c_while_the_threads_are_joined_ends_the_waiting() -> None:
    held = Held(press_later)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with no_thread_left():
        with pytest.raises(KeyboardInterrupt), Chain(1) as chain:
            assert next(chain.ahead(held.items())) == 0
        assert held.let_go() == [(WORKER_NAME, True)]


def test_ctrl_c_that_is_noted_waits_for_all_threads() -> None:
    def press_and_end() -> None:
        press_later()
        time.sleep(2 * GRACE_S)
        held.end.set()

    signal.signal(signal.SIGINT, signal.default_int_handler)
    held = Held(press_and_end)
    with no_thread_left(), InterruptFlag() as interrupt, Chain(1) as chain:
        assert next(chain.ahead(held.items())) == 0
    assert interrupt.is_set


def test_a_thread_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start"), Chain(DEPTH) as chain:
        chain.ahead(Numbers(3).items())


def test_leaving_early_while_an_earlier_ctrl_c_is_handled_waits_for_all_threads() -> None:
    slow = threading.Event()

    def work() -> Generator[int, None, None]:
        yield 0
        slow.wait(2 * GRACE_S)
        yield 1

    def stages() -> Generator[int, None, None]:
        with Chain(DEPTH) as chain:
            yield from chain.ahead(work())

    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        with no_thread_left():
            items = stages()
            assert next(items) == 0
            items.close()
