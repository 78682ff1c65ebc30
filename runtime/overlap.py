"""Stages side by side: each works in threads of its own, a bounded number of items ahead of the next one."""
from __future__ import annotations

import atexit
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from queue import SimpleQueue
from types import TracebackType
from typing import TypeVar

from stmask_deploy.console import WORKER_NAME

from .daemon_thread import DaemonThread
from .interrupt import find_interrupt

T = TypeVar("T")
U = TypeVar("U")
END_S = 20.0  # for which the end of the program waits: a frame in hand takes less, but for the first ones on a GPU
GRACE_S = 0.3  # for which even Ctrl-C waits: most threads have done by then what they have in hand


class _End:
    """The last entry of a queue: nothing more comes, or the exception that came instead."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class Overlap:
    """Context manager over the threads of a chain of stages; leaving it ends them all, wherever they are.

    Items keep their order. An exception of a stage travels down the chain behind the items before it and is raised
    where the chain is read. Leaving waits for what each thread has in hand, at most one item. Ctrl-C that leads to it,
    or comes meanwhile, ends the waiting: threads are left behind with a name that tells so, `console.WORKER_NAME`. The
    same is done where waiting could be for ever, see `watch`.

    Args:
        depth: finished items that wait between two stages at most.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._is_left = threading.Event()
        self._threads: list[threading.Thread] = []
        self._slots: list[threading.Semaphore] = []
        self._handled: BaseException | None = None  # when this was entered
        self._ended: list[threading.Event] = []  # of the stages; a stage ends after the workers that it has
        self._abandoned: list[object] = []  # not empty: the collector found the reader
        _LIVING.add(self)

    def ahead(self, items: Generator[T, None, None]) -> Generator[T, None, None]:
        """The same items, made by a thread of their own that starts now; it closes `items` in the end."""
        queue: SimpleQueue[T | _End] = SimpleQueue()
        slots = threading.Semaphore(self._depth)
        # A generator that is kept but not read to its end must not keep the program from ending: hence a daemon.
        ended = threading.Event()
        thread = threading.Thread(target=self._work, args=(items, queue, slots, ended), daemon=True)
        thread.start()
        self._threads.append(thread)
        self._slots.append(slots)
        self._ended.append(ended)
        return _taken(queue, slots)

    def map(self, function: Callable[[T], U], items: Iterator[T], workers: int) -> Generator[U, None, None]:
        """`function` of every item, in order, by a number of threads; an exception comes behind the items before it."""
        pending: deque[Future[U]] = deque()
        failure: BaseException | None = None
        with ThreadPoolExecutor(workers, initializer=self._add_worker) as pool:
            try:
                while failure is None:
                    try:
                        item = next(items)
                    except StopIteration:
                        break
                    except BaseException as error:  # what is pending was there before it
                        failure = error
                        break
                    pending.append(pool.submit(function, item))
                    if len(pending) >= workers:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()
        if failure is not None:
            raise failure

    def _add_worker(self) -> None:
        self._threads.append(threading.current_thread())

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
        queue.put(_End(failure))
        ended.set()

    def __enter__(self) -> Overlap:
        self._handled = sys.exc_info()[1]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self._is_left.set()
        for slots in self._slots:
            slots.release()
        is_urgent = find_interrupt(error, self._handled) is not None  # in the reader's body it comes as a GeneratorExit
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
        """Leave it as the program ends, where a reader was kept, or nobody could wait for the threads."""
        self._is_left.set()
        for slots in self._slots:
            slots.release()
        self._join(END_S)

    def watch(self, reader: Generator[T, None, None]) -> None:
        """Take note if `reader`, which enters this, is left to the garbage collector.

        That closes it at any moment, in whichever thread: perhaps in one that holds what the threads here wait for.
        """
        # The collector calls back before it closes anything, a generator around this one too, which then closes this.
        # No line of Python is to run there: Ctrl-C that came meanwhile would be raised in it, and lost.
        self._reader = weakref.ref(reader, self._abandoned.append)

    def _may_wait(self) -> bool:
        """Whether this thread may wait for all others; a `DaemonThread` is one that they wait for."""
        thread = threading.current_thread()
        return not (self._abandoned or thread in self._threads or isinstance(thread, DaemonThread))

    def _join(self, timeout_s: float | None) -> None:
        start = time.monotonic()
        for ended in self._ended:
            # Ctrl-C in the middle of `Thread.join` makes Python, up to 3.12, take the thread for one that has ended.
            if not ended.wait(None if timeout_s is None else max(0.0, start + timeout_s - time.monotonic())):
                return
        for thread in tuple(self._threads):
            thread.join()


# Its threads keep one alive. One that comes back from a library when the interpreter is gone takes the process down.
_LIVING: weakref.WeakSet[Overlap] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    for overlap in tuple(_LIVING):
        overlap.end()


def _taken(queue: SimpleQueue[T | _End], slots: threading.Semaphore) -> Generator[T, None, None]:
    """What a thread puts into its queue, up to the end."""
    while True:
        entry = queue.get()
        if isinstance(entry, _End):
            break
        slots.release()
        yield entry
    if entry.error is not None:
        raise entry.error
