"""Ctrl-C in a training run: immediate where nothing would be lost, otherwise after the current step."""
from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any


class Interrupts:
    """Context manager that handles Ctrl-C during a run.

    A process that trains alone is interrupted at once, except within `held` blocks. One of several processes only
    records the request, because all must stop after the same step, except within `alone` blocks.

    Only the main thread of a program receives Ctrl-C: in any other this does nothing, and likewise if SIGINT is
    ignored.

    Args:
        is_only: there are no other processes.

    Attributes:
        is_set: Ctrl-C was pressed.
    """

    def __init__(self, *, is_only: bool) -> None:
        self.is_set = False
        self._is_only, self._is_held = is_only, not is_only
        self._before: Any = None

    def __enter__(self) -> Interrupts:
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Delay Ctrl-C to the end of the block for a process that trains alone; a second press interrupts at once."""
        with self._hold(True):
            yield
        if self._is_only and self.is_set:
            raise KeyboardInterrupt

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let Ctrl-C end the block at once, since the other processes only wait; one of several then continues."""
        try:
            with self._hold(False):
                yield
        except KeyboardInterrupt:
            if self._is_only:
                raise

    @contextmanager
    def _hold(self, is_held: bool) -> Iterator[None]:
        before, self._is_held = self._is_held, is_held
        try:
            yield
        finally:
            self._is_held = before

    def _note(self, _signal: int, _frame: FrameType | None) -> None:
        is_second, self.is_set = self.is_set, True
        if self._is_only:
            is_due = is_second or not self._is_held
        else:  # a launcher forwards Ctrl-C to processes that may have received it already, so ignore a second
            is_due = not (is_second or self._is_held)
        if is_due:
            raise KeyboardInterrupt
