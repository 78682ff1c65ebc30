"""Mean losses between two records of the log."""
from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class LossMeans:
    """Mean losses since they were last taken, and the time elapsed.

    Args:
        device: of the losses.
    """

    def __init__(self, device: str) -> None:
        self._device = torch.device(device)
        self._sums: dict[str, Tensor] = {}
        self.count = 0  # iterations
        self._start = time.monotonic()

    def add(self, losses: Mapping[str, Tensor]) -> None:
        """Add the losses of one iteration."""
        for name, value in losses.items():
            self._sums[name] = self._sums.get(name, 0) + value
        self.count += 1

    @contextmanager
    def left_out(self) -> Iterator[None]:
        """Exclude the time spent in the block."""
        seconds = self._seconds
        try:
            yield
        finally:
            self._start = time.monotonic() - seconds

    def take(self) -> tuple[dict[str, float], float]:
        """Return (means, seconds) and start over."""
        means = {name: float(value) / self.count for name, value in self._sums.items()}
        seconds = max(self._seconds, 1e-9)
        self._sums, self.count, self._start = {}, 0, time.monotonic()
        return means, seconds

    def state(self) -> dict[str, Any]:
        """State for `resume`."""
        return {"sums": dict(self._sums), "count": self.count, "seconds": self._seconds}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        self._sums = {name: value.to(self._device) for name, value in state["sums"].items()}
        self.count = state["count"]
        self._start = time.monotonic() - state["seconds"]

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._start
