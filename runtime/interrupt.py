"""Ctrl-C, SIGTERM and SIGHUP as a flag that is polled between frames, so that no file is left half-written."""
from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Any

from stmask_deploy.ending_signals import HANGUP, free_signals


class InterruptFlag:
    """Context manager that turns the first Ctrl-C into a request to stop; a second one interrupts at once, as usual.

    SIGTERM is treated alike: a second one ends the process. So is SIGHUP (the terminal was closed), whose second
    changes nothing. Only free signals are handled, see `free_signals`: where Ctrl-C is ignored it stays ignored, and
    SIGTERM stops the process.

    Attributes:
        is_set: Ctrl-C was pressed, or one of the other signals was received.
    """

    def __init__(self) -> None:
        self.is_set = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> InterruptFlag:
        for number in free_signals():
            self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, _signal: int, _frame: FrameType | None) -> None:
        for number in [one for one in self._before if one != HANGUP]:
            if number in self._before:  # otherwise put back for another signal that came meanwhile
                signal.signal(number, self._before.pop(number))
        self.is_set = True  # last: who sees it may send the second signal

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        while self._before:
            number, before = self._before.popitem()
            signal.signal(number, before)
