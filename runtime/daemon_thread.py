"""A thread that makes calls for others."""
from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


class DaemonThread:
    """Makes one call at a time, in the order of asking. One that hangs does not keep the program from ending."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        Thread(target=self._work, name=name, daemon=True).start()

    def call(self, function: Callable[[], T]) -> T:
        """What `function` returns or raises there."""
        future: Future[T] = Future()
        self._calls.put((future, function))
        return future.result()

    def _work(self) -> None:
        while True:
            future, function = self._calls.get()
            try:
                future.set_result(function())
            except BaseException as error:  # belongs to the caller, whatever it is
                future.set_exception(error)
            del future, function  # or they would live until the next call
