"""Where the time of a frame goes."""
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
    """What the pipeline tells about its stages. A thread tells of one frame at a time.

    A frame that passes from thread to thread takes its seconds along: `hand_over` here, `take_over` there.
    """

    def stage(self, name: str) -> AbstractContextManager[None]:
        """A context in which the stage `name` (one of `STAGES`) runs; a stage may be entered several times a frame."""
        ...

    def end_frame(self) -> None:
        """Everything this thread told or took over since its last call belongs to one frame, which is finished."""
        ...

    def hand_over(self) -> Mapping[str, float]:
        """Stage -> seconds of this thread's frame, which another thread goes on with."""
        ...

    def take_over(self, seconds: Mapping[str, float]) -> None:
        """This thread goes on with a frame that was handed over."""
        ...


class NoTimer:
    """Measures nothing."""

    def stage(self, _name: str) -> AbstractContextManager[None]:
        return _NOTHING

    def end_frame(self) -> None:
        return

    def hand_over(self) -> Mapping[str, float]:
        return {}

    def take_over(self, _seconds: Mapping[str, float]) -> None:
        return


class StageTimer:
    """Collects the seconds each stage took in each frame.

    The seconds of a frame add up to its time only where nothing else runs meanwhile: in the overlapped run a stage also
    waits for the cores and graphs that other frames are using.

    Attributes:
        frames: per finished frame, stage -> seconds; a stage that did not run is absent.
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
        """This thread's frame."""
        if not hasattr(self._by_thread, "current"):
            self._by_thread.current = {}
        current: dict[str, float] = self._by_thread.current
        return current

    def _add(self, name: str, seconds: float) -> None:
        current = self._current()
        current[name] = current.get(name, 0.0) + seconds
