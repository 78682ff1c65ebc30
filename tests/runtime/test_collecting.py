"""Known inside finalizers that the collector calls, and nowhere else."""
from __future__ import annotations

import gc
import threading
from typing import Any

import pytest

from stmask_deploy.runtime.collecting import is_collecting


class Noting:
    """Notes at its end whether the collector ends it, and in which thread."""

    def __init__(self, notes: list[tuple[bool, threading.Thread]]) -> None:
        self.notes = notes
        self.itself: Noting | None = None

    def __del__(self) -> None:
        self.notes.append((is_collecting(), threading.current_thread()))


@pytest.fixture
def notes() -> list[tuple[bool, threading.Thread]]:
    return []


def test_what_is_dropped_is_not_collected(notes: list[Any]) -> None:
    one = Noting(notes)
    del one
    assert notes == [(False, threading.current_thread())] and not is_collecting()


def circle(notes: list[Any]) -> None:
    """Leave one behind that only the collector can end."""
    one = Noting(notes)
    one.itself = one


def test_what_is_in_a_circle_is_collected_by_whichever_thread(notes: list[Any]) -> None:
    thread = threading.Thread(target=gc.collect)
    gc.disable()
    try:
        circle(notes)
        gc.collect()
        circle(notes)
        thread.start()
        thread.join()
    finally:
        gc.enable()
    assert notes == [(True, threading.current_thread()), (True, thread)] and not is_collecting()


def test_generators_that_are_closed_by_the_collector(notes: list[Any]) -> None:
    def waiting() -> Any:
        try:
            yield 1
        finally:
            notes.append(is_collecting())

    first = waiting()
    next(first)
    first.close()
    circle: list[Any] = [waiting()]
    circle.append(circle)
    next(circle[0])
    del circle
    gc.collect()
    assert notes == [False, True]


def test_an_exception_in_a_finalizer_does_not_stay(notes: list[Any]) -> None:
    class Failing:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            raise ValueError("in a finalizer")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.unraisablehook", notes.append)
        Failing()
        gc.collect()
    assert len(notes) == 1 and not is_collecting()
