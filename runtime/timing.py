"""Where the time of a frame goes."""
from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

STAGES = ("decode", "preprocess", "frame_graph", "nms", "temporal_graph", "tracker", "masks", "draw", "encode")

_NOTHING = nullcontext()


class Timer(Protocol):
    """What the pipeline tells about its stages."""

    def stage(self, name: str) -> AbstractContextManager[None]:
        """A context in which the stage `name` (one of `STAGES`) runs; a stage may be entered several times a frame."""
        ...

    def end_frame(self) -> None:
        """Everything since the last call belongs to one frame."""
        ...


class NoTimer:
    """Measures nothing."""

    def stage(self, _name: str) -> AbstractContextManager[None]:
        return _NOTHING

    def end_frame(self) -> None:
        return


class StageTimer:
    """Collects the seconds each stage took in each frame.

    Attributes:
        frames: per finished frame, stage -> seconds; a stage that did not run is absent.
    """

    def __init__(self) -> None:
        self.frames: list[dict[str, float]] = []
        self._current: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self._current[name] = self._current.get(name, 0.0) + time.perf_counter() - start

    def end_frame(self) -> None:
        self.frames.append(self._current)
        self._current = {}
