"""Runs that take turns, so that a machine's drift affects all of them alike."""
from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from stmask_deploy.bench.alternation import back_and_forth


def turns(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every run, taken in turns, in reverse order in every second round.

    All run once before the first round, and once before each turn: neither is counted.
    """
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    for order in back_and_forth(runs.items(), rounds):
        for name, run in order:
            run()
            start = time.perf_counter()
            run()
            samples[name].append(1e3 * (time.perf_counter() - start))
    return samples
