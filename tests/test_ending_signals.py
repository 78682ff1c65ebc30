"""Signals that end a process."""
from __future__ import annotations

import importlib
import signal
import sys
import threading

import pytest

from stmask_deploy import ending_signals


@pytest.mark.skipif(sys.platform == "win32", reason="numbers of POSIX")
def test_their_numbers() -> None:
    assert ending_signals.ENDING_SIGNALS == (15, 1) and ending_signals.HANGUP == 1


def test_systems_without_terminals_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.delattr(signal, "SIGHUP", raising=False)
        assert importlib.reload(ending_signals).ENDING_SIGNALS == (signal.SIGTERM,)
    importlib.reload(ending_signals)


def test_another_thread_never_receives_them() -> None:
    def enter() -> None:
        with ending_signals.ended_by_signals():
            found.extend(map(signal.getsignal, ending_signals.ENDING_SIGNALS))

    found: list[object] = []
    before = list(map(signal.getsignal, ending_signals.ENDING_SIGNALS))
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == before


@pytest.mark.parametrize(("taken", "free"), [
    ({}, [signal.SIGINT, *ending_signals.ENDING_SIGNALS]),
    ({signal.SIGINT: signal.SIG_IGN}, list(ending_signals.ENDING_SIGNALS)),
    ({signal.SIGINT: None}, list(ending_signals.ENDING_SIGNALS)),  # a handler that is not Python's
    ({signal.SIGINT: print}, [signal.SIGINT, *ending_signals.ENDING_SIGNALS]),
    ({signal.SIGTERM: print, ending_signals.HANGUP: signal.SIG_IGN}, [signal.SIGINT]),
    ({signal.SIGTERM: None, ending_signals.HANGUP: None}, [signal.SIGINT])])
def test_signals_that_are_handled_otherwise_are_not_free(monkeypatch: pytest.MonkeyPatch, taken: dict[int, object],
                                                         free: list[int]) -> None:
    others = {signal.SIGINT: signal.default_int_handler}
    monkeypatch.setattr(signal, "getsignal", lambda number: {**others, **taken}.get(number, signal.SIG_DFL))
    assert ending_signals.free_signals() == free
