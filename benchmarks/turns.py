"""Runs that take turns, so that a machine's drift affects all of them alike."""
from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def turns(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of every run, taken in turns; each turn starts with one warm-up run that is not counted."""
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            run()
            start = time.perf_counter()
            run()
            samples[name].append(1e3 * (time.perf_counter() - start))
    return samples
