"""Ctrl-C and SIGTERM as a question asked between frames, so that no file is left in the middle of something."""
from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class InterruptFlag:
    """Context manager that takes the first Ctrl-C as a wish to stop; a second one interrupts at once, as usual.

    So it takes SIGTERM, where nobody else does: a second one ends the process. Only the main thread of a program
    receives signals: in any other this does nothing. Nor does it take Ctrl-C where that is ignored: that of a terminal
    is not meant for the jobs that a script runs in its background, which SIGTERM stops.

    Attributes:
        is_set: Ctrl-C was pressed, or SIGTERM came.
    """

    def __init__(self) -> None:
        self.is_set = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> InterruptFlag:
        if threading.current_thread() is threading.main_thread():
            if signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, None):
                self._before[signal.SIGINT] = signal.signal(signal.SIGINT, self._note)
            if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
                self._before[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._note)
        return self

    def _note(self, _signal: int, _frame: FrameType | None) -> None:
        self.is_set = True
        self._restore()

    def _restore(self) -> None:
        while self._before:
            number, before = self._before.popitem()
            signal.signal(number, before)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._restore()


def find_interrupt(error: BaseException | None, handled: BaseException | None) -> KeyboardInterrupt | None:
    """The Ctrl-C that is `error`, or led to it.

    Args:
        error: what was raised.
        handled: what was being handled before (`sys.exc_info`), which Python notes as the context of all that follows.
    """
    while error is not None and error is not handled and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error if isinstance(error, KeyboardInterrupt) and error is not handled else None


def raise_interrupt(error: BaseException, handled: BaseException | None) -> None:
    """Raise the Ctrl-C that led to `error`, if one did: compiled modules make an ImportError of it.

    Args:
        error, handled: see `find_interrupt`.
    """
    interrupt = find_interrupt(error, handled)
    if interrupt is not None:
        raise interrupt
