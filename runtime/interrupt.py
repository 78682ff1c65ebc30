"""Ctrl-C as a question asked between frames, so that no file is left in the middle of something."""
from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class InterruptFlag:
    """Context manager that takes the first Ctrl-C as a wish to stop; a second one interrupts at once, as usual.

    Only the main thread of a program receives Ctrl-C: in any other this does nothing. Nor does it where Ctrl-C is
    ignored: that of a script's terminal is not meant for the jobs in its background.

    Attributes:
        is_set: Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        self.is_set = False
        self._before: Any = None

    def __enter__(self) -> InterruptFlag:
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def _note(self, _signal: int, _frame: FrameType | None) -> None:
        self.is_set = True
        self._restore()

    def _restore(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._restore()


def find_interrupt(error: BaseException | None) -> KeyboardInterrupt | None:
    """The Ctrl-C that is `error`, or led to it."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error


def raise_interrupt(error: BaseException) -> None:
    """Raise the Ctrl-C that led to `error`, if one did: compiled modules make an ImportError of it."""
    interrupt = find_interrupt(error)
    if interrupt is not None:
        raise interrupt
