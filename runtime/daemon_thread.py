"""A thread that makes calls for others."""
from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread, current_thread
from typing import Any, TypeVar

from stmask_deploy.console import WORKER_NAME

T = TypeVar("T")


class DaemonThread(Thread):
    """Makes one call at a time, in the order of asking. One that hangs does not keep the program from ending.

    Others wait for this thread, so it must not wait for any of them.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self.start()

    def call(self, function: Callable[[], T]) -> T:
        """What `function` returns or raises there; from the thread itself it is called at once."""
        return function() if current_thread() is self else self.post(function).result()

    def post(self, function: Callable[[], T]) -> Future[T]:
        """Have `function` called without waiting for it."""
        future: Future[T] = Future()
        self._calls.put((future, function))
        return future

    def run(self) -> None:
        while True:
            future, function = self._calls.get()
            idle_name, self.name = self.name, WORKER_NAME  # in the middle of something: see there
            try:
                result, failure = function(), None
            except BaseException as error:  # belongs to the caller, whatever it is
                result, failure = None, error
            self.name = idle_name
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)
            del future, function, result, failure  # or they would live until the next call
