"""A daemon thread that executes calls for other threads."""
from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from threading import Thread, current_thread
from typing import Any, TypeVar

from stmask_deploy.console import WORKER_NAME

T = TypeVar("T")


class DaemonThread(Thread):
    """Executes one call at a time, in the order requested. A call that hangs does not keep the program from exiting.

    Other threads wait for this one, so it must never wait for them.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self.start()

    def call(self, function: Callable[[], T]) -> T:
        """Run `function` in this thread and return its result or raise its exception; direct if called from here."""
        return function() if current_thread() is self else self.post(function).result()

    def post(self, function: Callable[[], T]) -> Future[T]:
        """Queue `function` without waiting for it."""
        future: Future[T] = Future()
        self._calls.put((future, function))
        return future

    def run(self) -> None:
        while True:
            future, function = self._calls.get()
            idle_name, self.name = self.name, WORKER_NAME  # marks a thread that is busy, see there
            try:
                result, failure = function(), None
            except BaseException as error:  # any exception is the caller's
                result, failure = None, error
            self.name = idle_name
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)
            del future, function, result, failure  # otherwise they would stay alive until the next call
