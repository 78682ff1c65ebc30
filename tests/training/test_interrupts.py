"""Ctrl-C and other signals in training: at once, after the step, or as a wish that all processes agree on."""
from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from functools import partial

import pytest

from stmask_deploy.ending_signals import ENDING_SIGNALS, HANGUP
from stmask_deploy.training.interrupts import Interrupts

pytestmark = pytest.mark.usefixtures("usual_interrupt")


@pytest.fixture(params=[signal.SIGINT, *ENDING_SIGNALS], autouse=True)
def number(request: pytest.FixtureRequest) -> int:
    """The signal that `press` sends."""
    return int(request.param)


@pytest.fixture
def press(number: int) -> Callable[[], None]:
    return partial(signal.raise_signal, number)


def test_a_process_that_is_the_only_one_is_interrupted_at_once(number: int, press: Callable[[], None]) -> None:
    with Interrupts(is_only=True) as interrupts, pytest.raises(KeyboardInterrupt), interrupts.alone():
        press()
    with Interrupts(is_only=True) as interrupts:
        for _ in range(1 if number == HANGUP else 2):
            with pytest.raises(KeyboardInterrupt):
                press()
        assert interrupts.is_set


def test_what_is_held_is_finished_first(press: Callable[[], None]) -> None:
    done = []
    with Interrupts(is_only=True) as interrupts, pytest.raises(KeyboardInterrupt), interrupts.held():
        press()
        done.append("the step")
    assert done == ["the step"]


def test_a_second_press_does_not_wait_but_a_second_hangup_does(number: int, press: Callable[[], None]) -> None:
    done = []
    with Interrupts(is_only=True) as interrupts, pytest.raises(KeyboardInterrupt), interrupts.held():
        press()
        press()
        done.append("the step")
    assert done == (["the step"] if number == HANGUP else [])


@pytest.mark.skipif(HANGUP is None, reason="no such signal")
def test_a_hangup_does_not_interrupt_what_is_done_after_the_first_signal(press: Callable[[], None]) -> None:
    """Such as writing the snapshot."""
    with Interrupts(is_only=True):
        with pytest.raises(KeyboardInterrupt):
            press()
        signal.raise_signal(HANGUP or 0)


def test_one_among_several_only_notes_it_however_often(press: Callable[[], None]) -> None:
    with Interrupts(is_only=False) as interrupts:
        press()
        with interrupts.held():
            press()
        press()
        assert interrupts.is_set


def test_one_among_several_leaves_what_it_does_alone_and_goes_on(press: Callable[[], None]) -> None:
    done = []
    with Interrupts(is_only=False) as interrupts:
        with interrupts.alone():
            press()
            done.append("all of it")
        assert interrupts.is_set and done == []
        press()  # held again
        with interrupts.alone():
            press()  # the launcher passes the first one on
            done.append("the rest")
    assert done == ["the rest"]


def test_the_usual_handler_comes_back(number: int) -> None:
    usual = signal.getsignal(number)
    with pytest.raises(ValueError, match="the run's"), Interrupts(is_only=False):
        assert signal.getsignal(number) != usual
        raise ValueError("the run's")
    assert signal.getsignal(number) == usual


def test_where_it_is_ignored_it_stays_so(number: int, press: Callable[[], None]) -> None:
    before = signal.signal(number, signal.SIG_IGN)
    try:
        with Interrupts(is_only=True) as interrupts:
            press()
            assert not interrupts.is_set
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_another_thread_never_receives_it(number: int) -> None:
    def enter() -> None:
        with Interrupts(is_only=True):
            handlers.append(signal.getsignal(number))

    handlers: list[object] = []
    usual = signal.getsignal(number)
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert handlers == [usual]


@pytest.mark.parametrize("other", ENDING_SIGNALS)
def test_another_handler_stays(other: int) -> None:
    def own(_signal: int, _frame: object) -> None:
        called.append(_signal)

    called: list[int] = []
    before = signal.signal(other, own)
    try:
        with Interrupts(is_only=True) as interrupts:
            signal.raise_signal(other)
            assert called == [other] and not interrupts.is_set
    finally:
        signal.signal(other, before)
