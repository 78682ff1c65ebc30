"""Measuring the time of each stage of a frame."""
from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

STAGES = ("decode", "preprocess", "frame_graph", "nms", "instance_graph", "temporal_graph", "prototype_graph", "masks",
          "tracker", "draw", "encode")

_NOTHING = nullcontext()


class Timer(Protocol):
    """Interface through which the pipeline reports its stages. Each thread reports one frame at a time.

    When a frame moves to another thread, its times move with it: `hand_over` in the old thread, `take_over` in the new.
    """

    def stage(self, name: str) -> AbstractContextManager[None]:
        """Context manager around the stage `name` (one of `STAGES`); may be entered several times per frame."""
        ...

    def end_frame(self) -> None:
        """Finish this thread's frame: all times it reported or took over since the last call belong to it."""
        ...

    def hand_over(self) -> Mapping[str, float]:
        """Return and clear stage -> seconds of this thread's frame, which another thread continues."""
        ...

    def take_over(self, seconds: Mapping[str, float]) -> None:
        """Continue, in this thread, a frame that was handed over."""
        ...


class NoTimer:
    """A `Timer` that measures nothing."""

    def stage(self, _name: str) -> AbstractContextManager[None]:
        return _NOTHING

    def end_frame(self) -> None:
        return

    def hand_over(self) -> Mapping[str, float]:
        return {}

    def take_over(self, _seconds: Mapping[str, float]) -> None:
        return


class StageTimer:
    """A `Timer` that collects the seconds that each stage took in each frame.

    They add up to the time of a frame only if nothing runs concurrently: in mode throughput, a stage also waits for
    cores and graphs that other frames are using.

    Attributes:
        frames: stage -> seconds for each finished frame; stages that did not run are absent.
    """

    def __init__(self) -> None:
        self.frames: list[dict[str, float]] = []
        self._by_thread = threading.local()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._add(name, time.perf_counter() - start)

    def end_frame(self) -> None:
        self.frames.append(self.hand_over())

    def hand_over(self) -> dict[str, float]:
        """See `Timer.hand_over`."""
        current = self._current()
        self._by_thread.current = {}
        return current

    def take_over(self, seconds: Mapping[str, float]) -> None:
        """See `Timer.take_over`."""
        for name, value in seconds.items():
            self._add(name, value)

    def _current(self) -> dict[str, float]:
        """Stage -> seconds of this thread's current frame."""
        if not hasattr(self._by_thread, "current"):
            self._by_thread.current = {}
        current: dict[str, float] = self._by_thread.current
        return current

    def _add(self, name: str, seconds: float) -> None:
        current = self._current()
        current[name] = current.get(name, 0.0) + seconds
