"""A readers-writer lock."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition


class Gate:
    """A readers-writer lock that prefers writers: `passing` is shared, `alone` is exclusive. Not re-entrant."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._num_passing = 0
        self._num_waiting = 0  # for `alone`
        self._is_taken = False

    @contextmanager
    def passing(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._is_taken and not self._num_waiting)
            self._num_passing += 1
        try:
            yield
        finally:
            with self._changed:
                self._num_passing -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._num_waiting += 1
            try:
                self._changed.wait_for(lambda: not self._is_taken and not self._num_passing)
            finally:
                self._num_waiting -= 1
            self._is_taken = True
        try:
            yield
        finally:
            with self._changed:
                self._is_taken = False
                self._changed.notify_all()
