"""Several sources through one set of graphs, a number of them at the same time."""
from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread

from stmask_deploy.console import WORKER_NAME

from .interrupt import InterruptFlag
from .run import RunSummary

WAKE_S = 0.1  # seconds
Job = Callable[[InterruptFlag], RunSummary]


@dataclass(frozen=True, eq=False)
class Outcome:
    """How one source ended: with a summary, or with the error that ended it."""

    position: int  # among the sources
    source: str
    result: RunSummary | BaseException


def run_several(sources: Sequence[str], prepare: Callable[[str], Job],
                parallel: int) -> Generator[Outcome, None, None]:
    """Run sources, past those that fail; gives their outcomes as they end.

    Ctrl-C lets what runs complete its files, and starts nothing more; so does closing this generator, which waits for
    them. A second Ctrl-C waits for nothing: KeyboardInterrupt is raised and the threads are left to the end of the
    process.

    Args:
        sources: are prepared in this order.
        prepare: opens a source, in the thread of the caller; the run itself is what it gives. Whatever either of them
            raises is the outcome of that source, and no matter of the others.
        parallel: how many run at the same time.
    """
    ended: SimpleQueue[Outcome] = SimpleQueue()
    threads: list[Thread] = []
    num_running = 0
    with InterruptFlag() as interrupt:
        def work(job: Job, position: int) -> None:
            ended.put(Outcome(position, sources[position], _result(job, interrupt)))

        try:
            for position, source in enumerate(sources):
                if num_running >= parallel:
                    yield _next(ended)
                    num_running -= 1
                if interrupt.is_set:
                    break
                try:
                    job = prepare(source)
                except Exception as error:
                    yield Outcome(position, source, error)
                else:
                    # One that hangs, in a camera perhaps, must not keep the process from ending: hence a daemon.
                    threads.append(Thread(target=work, args=(job, position), name=WORKER_NAME, daemon=True))
                    threads[-1].start()
                    num_running += 1
            for _ in range(num_running):
                yield _next(ended)
        except GeneratorExit:
            interrupt.is_set = True
            for thread in threads:
                thread.join()
            raise


def _next(ended: SimpleQueue[Outcome]) -> Outcome:
    # Ctrl-C in the moment before the main thread falls asleep does not wake it: it has to look up by itself.
    while True:
        with suppress(Empty):
            return ended.get(timeout=WAKE_S)


def _result(job: Job, interrupt: InterruptFlag) -> RunSummary | BaseException:
    try:
        return job(interrupt)
    except BaseException as error:  # whoever waits for this source must hear of it
        return error
