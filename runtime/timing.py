"""Measuring the time of each stage of a frame."""
from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

STAGES = ("decode", "preprocess", "frame_graph", "nms", "instance_graph", "temporal_graph", "prototype_graph", "masks",
          "tracker", "draw", "encode")


class FrameTimes:
    """The time that each stage of one frame took. It accompanies the frame, also from thread to thread.

    Attributes:
        start: `time.perf_counter()` when the frame was begun.
        seconds: by stage (one of `STAGES`); stages that did not run are absent.
    """

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Context manager around the stage `name`; may be entered several times, then the times add up."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start


class StageTimer:
    """Collects the seconds that each stage took in each frame.

    They add up to the time of a frame only if nothing runs concurrently: in mode throughput, a stage also waits for
    cores and graphs that other frames are using.

    Attributes:
        frames: stage -> seconds for each finished frame; stages that did not run are absent.
    """

    def __init__(self) -> None:
        self.frames: list[dict[str, float]] = []

    def end_frame(self, times: FrameTimes) -> None:
        """Called with the times of each frame once the next one is requested."""
        self.frames.append(times.seconds)
