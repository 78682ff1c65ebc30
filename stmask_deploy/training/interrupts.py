"""Ctrl-C, SIGTERM and SIGHUP in a training run: at once where nothing would be lost, otherwise after the step."""
from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from stmask_deploy.ending_signals import HANGUP, free_signals


class Interrupts:
    """Context manager that handles Ctrl-C, SIGTERM and SIGHUP during a run, in the same way.

    A process that trains alone is interrupted at once, except within `held` blocks. One of several processes only
    records the request, because all must stop after the same step, except within `alone` blocks. SIGHUP after another
    signal changes nothing.

    Only free signals are handled, see `free_signals`.

    Args:
        is_only: there are no other processes.

    Attributes:
        is_set: Ctrl-C was pressed, or another signal received.
    """

    def __init__(self, *, is_only: bool) -> None:
        self.is_set = False
        self._is_only, self._is_held = is_only, not is_only
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        for number in free_signals():
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

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

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.is_set and number == HANGUP:
            return
        is_second, self.is_set = self.is_set, True
        if self._is_only:
            is_due = is_second or not self._is_held
        else:  # a launcher forwards a signal to processes that may have received it already, so ignore a second
            is_due = not (is_second or self._is_held)
        if is_due:
            raise KeyboardInterrupt
