"""A chain of concurrent stages: each runs in its own threads, a bounded number of items ahead of the next one."""
from __future__ import annotations

import atexit
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from contextlib import closing
from queue import SimpleQueue
from types import TracebackType
from typing import TypeVar

from stmask_deploy.workers import WORKER_NAME
from stmask_deploy.wrapped_interrupt import find_interrupt

T = TypeVar("T")
U = TypeVar("U")
END_S = 20.0  # maximum wait at program exit: longer than any frame takes, except the first ones on a GPU
GRACE_S = 0.3  # maximum wait after Ctrl-C: most threads finish their current item by then


class _End:
    """The last entry of a queue, with the exception that ended the stage, if any."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class Chain:
    """Context manager over the threads of a chain of stages; leaving it ends all of them.

    Items keep their order. An exception in a stage passes down the chain after the items before it and is raised to the
    consumer. Leaving waits for each thread to finish its current item. After Ctrl-C, before or during the wait, it
    waits at most `GRACE_S` longer; threads still alive are abandoned and renamed to `workers.WORKER_NAME`. They are
    also abandoned, without waiting, where waiting could deadlock, see `watch`.

    Args:
        depth: maximum number of finished items between two stages.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._is_left = threading.Event()
        self._threads: list[threading.Thread] = []
        self._slots: list[threading.Semaphore] = []
        self._handled: BaseException | None = None  # the exception being handled on entry
        self._ended: list[threading.Event] = []  # one per stage; a stage ends after its workers
        self._abandoned: list[object] = []  # not empty: the garbage collector found the reader
        _LIVING.add(self)

    def is_left(self) -> bool:
        """Whether the threads are to end, so that none may go on waiting for something to work on."""
        return self._is_left.is_set()

    def ahead(self, items: Generator[T, None, None]) -> Generator[T, None, None]:
        """Yield the same items, produced by a new thread that starts immediately and finally closes `items`."""
        queue: SimpleQueue[T | _End] = SimpleQueue()
        slots = threading.Semaphore(self._depth)
        # A daemon, so that a generator that is never exhausted does not keep the program from exiting.
        ended = threading.Event()
        thread = threading.Thread(target=self._work, args=(items, queue, slots, ended), daemon=True)
        thread.start()
        self._threads.append(thread)
        self._slots.append(slots)
        self._ended.append(ended)
        return _taken(queue, slots)

    def map(self, function: Callable[[T], U], items: Iterator[T], workers: int) -> Generator[U, None, None]:
        """Yield `function` of every item, in order, computed by `workers` threads.

        An exception is raised after the items before it.
        """
        tasks: SimpleQueue[tuple[Future[U], T] | None] = SimpleQueue()  # None ends a thread
        # Not a pool of the standard library, which refuses work as soon as the main thread has ended.
        threads = [threading.Thread(target=_compute, args=(function, tasks), daemon=True) for _ in range(workers)]
        pending: deque[Future[U]] = deque()
        failures: list[BaseException] = []  # taken out where it is raised, see `_work`
        try:
            for thread in threads:
                thread.start()
                self._threads.append(thread)
            while not failures:
                try:
                    item = next(items)
                except StopIteration:
                    break
                except BaseException as error:  # raised after the pending items, which came before it
                    failures.append(error)
                    break
                pending.append(Future())
                tasks.put((pending[-1], item))
                if len(pending) >= workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for _ in threads:
                tasks.put(None)
            for thread in threads:
                if thread.ident is not None:  # it was started
                    thread.join()
        if failures:
            raise failures.pop()

    def _work(self, items: Generator[T, None, None], queue: SimpleQueue[T | _End], slots: threading.Semaphore,
              ended: threading.Event) -> None:
        failure: BaseException | None = None
        try:
            with closing(items):
                for item in items:
                    slots.acquire()
                    if self._is_left.is_set():
                        break
                    queue.put(item)
        except BaseException as error:
            failure = error
        end, failure = _End(failure), None
        queue.put(end)
        del end  # this frame is in the exception's traceback: while it refers to it, both stay in memory
        ended.set()

    def __enter__(self) -> Chain:
        self._handled = sys.exc_info()[1]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._is_left.set()
        for slots in self._slots:
            slots.release()
        is_urgent = find_interrupt(error, self._handled) is not None  # may be the context of a GeneratorExit
        try:
            if self._may_wait():
                self._join(GRACE_S if is_urgent else None)
        except KeyboardInterrupt:
            self._join(GRACE_S)
            raise
        finally:
            for thread in self._threads:
                if thread.is_alive():
                    thread.name = WORKER_NAME

    def end(self) -> None:
        """Stop the threads at program exit, if a reader is still referenced or the threads were abandoned."""
        self._is_left.set()
        for slots in self._slots:
            slots.release()
        self._join(END_S)

    def watch(self, reader: Generator[T, None, None]) -> None:
        """Detect when `reader`, the generator that enters this context, is left to the garbage collector.

        The collector may close it at any time and in any thread, even one that holds a lock these threads wait for.
        """
        # The weak reference's callback runs before the collector closes anything, including outer generators that close
        # this one. The callback must not be Python code: a pending Ctrl-C would be raised in it, and lost.
        self._reader = weakref.ref(reader, self._abandoned.append)

    def _may_wait(self) -> bool:
        """Whether the current thread may join the others without deadlock."""
        return not (self._abandoned or threading.current_thread() in self._threads)

    def _join(self, timeout_s: float | None) -> None:
        start = time.monotonic()
        for ended in self._ended:
            # Ctrl-C during `Thread.join` makes Python, up to 3.12, regard the thread as ended.
            if not ended.wait(None if timeout_s is None else max(0.0, start + timeout_s - time.monotonic())):
                return
        for thread in tuple(self._threads):
            thread.join()


# A chain stays alive as long as its threads. A thread that returns from a library call after the interpreter has
# shut down crashes the process.
_LIVING: weakref.WeakSet[Chain] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    for chain in tuple(_LIVING):
        chain.end()


def _taken(queue: SimpleQueue[T | _End], slots: threading.Semaphore) -> Generator[T, None, None]:
    """Yield what a thread puts into its queue, up to the end marker."""
    while True:
        entry = queue.get()
        if isinstance(entry, _End):
            break
        slots.release()
        yield entry
    failures = [] if entry.error is None else [entry.error]
    del entry  # see `Chain._work`
    if failures:
        raise failures.pop()


def _compute(function: Callable[[T], U], tasks: SimpleQueue[tuple[Future[U], T] | None]) -> None:
    """Complete futures with `function` of their items."""
    while (task := tasks.get()) is not None:
        future, item = task
        try:
            future.set_result(function(item))
        except BaseException as error:
            future.set_exception(error)
        del task, future, item  # the next one may be long in coming
