"""Ctrl-C in a training run: at once where nothing is lost by it, after the step where something would be."""
from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any


class Interrupts:
    """Context manager that takes Ctrl-C while a run lasts.

    A process that trains alone is interrupted at once, but for what it does `held`. One among several only notes the
    wish, since all must leave after the same step, and goes on until it asks; but for what it does `alone`.

    Only the main thread of a program receives Ctrl-C: in any other this does nothing. Nor does it where Ctrl-C is
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
        """A process that trains alone is interrupted at the end of the block; a second press does not wait for it."""
        with self._hold(True):
            yield
        if self._is_only and self.is_set:
            raise KeyboardInterrupt

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Ctrl-C ends the block at once: the others only wait for its end. One among several goes on behind it."""
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
        else:  # a launcher passes Ctrl-C on to processes that may have it already: the second one means nothing
            is_due = not (is_second or self._is_held)
        if is_due:
            raise KeyboardInterrupt
