"""Runs of several sources on one set of graphs, a given number of them in parallel."""
from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread

from stmask_deploy.workers import WORKER_NAME

from .interrupt import InterruptFlag
from .run import RunSummary

WAKE_S = 0.1  # seconds
Job = Callable[[InterruptFlag], RunSummary]


@dataclass(frozen=True, eq=False)
class Outcome:
    """How the run of one source ended: with a summary, or with an exception."""

    position: int  # index in the list of sources
    source: str
    result: RunSummary | BaseException


def run_several(sources: Sequence[str], prepare: Callable[[str, InterruptFlag], Job],
                parallel: int) -> Generator[Outcome, None, None]:
    """Run sources and yield their outcomes as they end; failures do not stop the others.

    After Ctrl-C no further source is started, and running ones complete their files. The same happens when this
    generator is closed, which waits for them. A second Ctrl-C does not wait: it raises KeyboardInterrupt and abandons
    the daemon threads.

    Args:
        sources: prepared in this order.
        prepare: opens a source, in the caller's thread, and returns the function that runs it; it is given the flag
            that Ctrl-C sets. An exception of either (for `prepare`, an `Exception`) becomes the outcome of that source
            and does not affect the others.
        parallel: maximum number of concurrent runs.
    """
    ended: SimpleQueue[Outcome] = SimpleQueue()
    threads: dict[int, Thread] = {}  # those that run, by the position of their source
    with InterruptFlag() as interrupt:
        def work(job: Job, position: int) -> None:
            ended.put(Outcome(position, sources[position], _result(job, interrupt)))

        def next_outcome() -> Outcome:
            outcome = _next(ended)
            # The thread may still be freeing what the run used. If the process ended meanwhile, libraries would crash.
            threads.pop(outcome.position).join()
            return outcome

        try:
            for position, source in enumerate(sources):
                if len(threads) >= parallel:
                    yield next_outcome()
                if interrupt.is_set:
                    break
                try:
                    job = prepare(source, interrupt)
                except Exception as error:
                    if interrupt.is_set:  # which may have been the reason
                        break
                    yield Outcome(position, source, error)
                else:
                    # A daemon, so that a run that hangs, perhaps in a camera, does not keep the process from exiting.
                    threads[position] = Thread(target=work, args=(job, position), name=WORKER_NAME, daemon=True)
                    del job  # so that it is freed by the thread
                    threads[position].start()
            while threads:
                yield next_outcome()
        except GeneratorExit:
            interrupt.is_set = True
            for thread in threads.values():
                thread.join()
            raise


def _next(ended: SimpleQueue[Outcome]) -> Outcome:
    # Ctrl-C just before the main thread blocks does not wake it, so it has to poll.
    while True:
        with suppress(Empty):
            return ended.get(timeout=WAKE_S)


def _result(job: Job, interrupt: InterruptFlag) -> RunSummary | BaseException:
    try:
        return job(interrupt)
    except BaseException as error:  # every exception must reach the consumer of the outcomes
        return error
