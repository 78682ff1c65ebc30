"""Ctrl-C between frames."""
from __future__ import annotations

import os
import signal
import threading

import pytest

from stmask_deploy.runtime.interrupt import InterruptFlag


@pytest.fixture(autouse=True)
def usual_handler(interrupts_as_before: None) -> None:
    """A background job starts with Ctrl-C ignored; here it shall mean what it means at a terminal."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_is_noted_the_second_interrupts() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), InterruptFlag() as interrupt:
        assert not interrupt.is_set
        press()
        assert interrupt.is_set
        press()
    assert signal.getsignal(signal.SIGINT) is before


def test_the_handler_is_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with InterruptFlag():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_are_left_alone() -> None:
    noted: list[bool] = []

    def work() -> None:
        with InterruptFlag() as interrupt:
            noted.append(interrupt.is_set)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert noted == [False]
