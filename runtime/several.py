"""Several sources through one set of graphs, a number of them at the same time."""
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from .interrupt import InterruptFlag
from .run import RunSummary

Job = Callable[[InterruptFlag], RunSummary]


@dataclass(frozen=True, eq=False)
class Outcome:
    """How one source ended: with a summary, or with the error that ended it."""

    position: int  # among the sources
    source: str
    result: RunSummary | Exception


def run_several(sources: Sequence[str], prepare: Callable[[str], Job], parallel: int) -> Iterator[Outcome]:
    """Run sources, past those that fail; gives their outcomes as they end.

    Ctrl-C lets what runs complete its files, and starts nothing more.

    Args:
        sources: are prepared in this order.
        prepare: opens a source, in the thread of the caller; the run itself is what it gives. Whatever either of them
            raises is the outcome of that source, and no matter of the others.
        parallel: how many run at the same time.
    """
    running: dict[Future[RunSummary], int] = {}

    def ended() -> Iterator[Outcome]:
        for future in sorted(wait(running, return_when=FIRST_COMPLETED).done, key=running.__getitem__):
            position = running.pop(future)
            yield Outcome(position, sources[position], _result(future))

    with InterruptFlag() as interrupt, ThreadPoolExecutor(parallel, "source") as pool:
        for position, source in enumerate(sources):
            while len(running) >= parallel:
                yield from ended()
            if interrupt.is_set:
                break
            try:
                job = prepare(source)
            except Exception as error:
                yield Outcome(position, source, error)
            else:
                running[pool.submit(job, interrupt)] = position
        while running:
            yield from ended()


def _result(future: Future[RunSummary]) -> RunSummary | Exception:
    error = future.exception()
    if error is None:
        return future.result()
    if isinstance(error, Exception):
        return error
    raise error
