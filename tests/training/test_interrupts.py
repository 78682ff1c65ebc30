"""Ctrl-C in training: at once, after the step, or as a wish that all processes agree on."""
from __future__ import annotations

import signal
import threading

import pytest

from stmask_deploy.training.interrupts import Interrupts


def press() -> None:
    signal.raise_signal(signal.SIGINT)


def test_a_process_that_is_the_only_one_is_interrupted_at_once(usual_interrupt: None) -> None:
    with Interrupts(is_only=True) as interrupts:
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                press()
        assert interrupts.is_set
        with pytest.raises(KeyboardInterrupt), interrupts.alone():
            press()


def test_what_is_held_is_finished_first(usual_interrupt: None) -> None:
    done = []
    with Interrupts(is_only=True) as interrupts, pytest.raises(KeyboardInterrupt), interrupts.held():
        press()
        done.append("the step")
    assert done == ["the step"]


def test_a_second_press_does_not_wait(usual_interrupt: None) -> None:
    done = []
    with Interrupts(is_only=True) as interrupts, pytest.raises(KeyboardInterrupt), interrupts.held():
        press()
        press()
        done.append("the step")
    assert done == []


def test_one_among_several_only_notes_it_however_often(usual_interrupt: None) -> None:
    with Interrupts(is_only=False) as interrupts:
        press()
        with interrupts.held():
            press()
        press()
        assert interrupts.is_set


def test_one_among_several_leaves_what_it_does_alone_and_goes_on(usual_interrupt: None) -> None:
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


def test_the_usual_handler_comes_back(usual_interrupt: None) -> None:
    with pytest.raises(ValueError, match="the run's"), Interrupts(is_only=False):
        raise ValueError("the run's")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_where_it_is_ignored_it_stays_so(usual_interrupt: None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Interrupts(is_only=True) as interrupts:
        press()
        assert not interrupts.is_set


def test_another_thread_never_receives_it(usual_interrupt: None) -> None:
    def enter() -> None:
        with Interrupts(is_only=True):
            handlers.append(signal.getsignal(signal.SIGINT))

    handlers: list[object] = []
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert handlers == [signal.default_int_handler]
