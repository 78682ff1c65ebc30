"""Running a pipeline over a source, in one of two modes: frame by frame, or with several frames in flight."""
from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from itertools import islice
from numbers import Integral
from typing import NamedTuple

from stmask_deploy.errors import InputError
from stmask_deploy.wording import shown

from .chain import Chain
from .detector import DetectedFrame
from .frame_source import Damage, Frame, FrameSource
from .pipeline import Pipeline
from .result import FrameResult
from .timing import FrameTimes, StageTimer

MODES = ("auto", "latency", "throughput")
DEPTH = 2  # frames queued between two stages: enough to even out varying stage times with little memory
# Detection threads if graphs may overlap: one preprocesses or runs NMS while another runs the frame graph. More of them
# only wait for each other at the GIL.
WORKERS = 2


@dataclass(frozen=True, eq=False)
class TrackedFrame:
    """A frame with its result, and the counts at that point."""

    frame: Frame
    result: FrameResult
    damage: Damage  # of the source, up to this frame
    lost_candidates: int  # see `Pipeline`, including this frame
    times: FrameTimes  # the consumer may add stages of its own
    line: bytes | None = None  # of the result in results.jsonl, if it is encoded already


class _Read(NamedTuple):
    """A frame that has been read, as passed between threads."""

    position: int
    frame: Frame
    damage: Damage
    times: FrameTimes


class _Detected(NamedTuple):
    read: _Read
    detected: DetectedFrame


def check_run(mode: str, max_frames: int | None) -> None:
    """Check the arguments of a run.

    Raises:
        InputError: `mode` is unknown, or `max_frames` is not a positive whole number.
    """
    if not isinstance(mode, str) or mode not in MODES:
        raise InputError(f"mode {shown(mode)} is not known; known: {', '.join(MODES)}")
    if max_frames is not None and (isinstance(max_frames, bool) or not isinstance(max_frames, Integral)
                                   or max_frames <= 0):
        raise InputError(f"max_frames must be a positive whole number, got {shown(max_frames)}")


def is_overlapped(mode: str, source: FrameSource) -> bool:
    """Whether `mode` keeps several frames of `source` in flight; auto does so for video files and folders."""
    return mode == "throughput" or (mode == "auto" and source.kind in ("video", "folder"))


def _first(source: FrameSource, max_frames: int | None) -> Iterator[Frame]:
    """Its first frames, or all; `islice` counts no further than `sys.maxsize`."""
    return islice(source, None if max_frames is None else min(max_frames, sys.maxsize))


def track_in_turn(pipeline: Pipeline, source: FrameSource, max_frames: int | None,
                  timer: StageTimer | None) -> Generator[TrackedFrame, None, None]:
    """Mode latency: read each frame when it is requested, and finish it before the next one is read."""
    frames = _first(source, max_frames)
    while True:
        times = FrameTimes()
        with times.stage("decode"):
            frame = next(frames, None)
        if frame is None:
            return
        result = pipeline.step(frame.image, frame.index, frame.time_s, times)
        yield TrackedFrame(frame, result, source.damage, pipeline.lost_candidates, times)
        if timer is not None:
            timer.end_frame(times)


def track_overlapped(pipeline: Pipeline, source: FrameSource, max_frames: int | None, timer: StageTimer | None,
                     detect_workers: int) -> Generator[TrackedFrame, None, None]:
    """Mode throughput: the same results in the same order; reading, detection and tracking run ahead in threads.

    Detection has `detect_workers` threads. With 0 it shares one with tracking, which is best if only one graph can run
    at a time (see `Bundle.may_overlap`).

    The consumer of this generator is the last stage. However the generator ends - exhausted, closed, or with an
    exception of any stage, which is raised here after the frames before it - no thread is left and the source is no
    longer read. But after KeyboardInterrupt it waits only briefly, and under the garbage collector not at all: the
    threads then end on their own, after their current item.
    """
    chain = Chain(DEPTH)
    tracked = _overlapped(chain, pipeline, source, max_frames, timer, detect_workers)
    chain.watch(tracked)
    return tracked


def _overlapped(chain: Chain, pipeline: Pipeline, source: FrameSource, max_frames: int | None,
                timer: StageTimer | None, detect_workers: int) -> Generator[TrackedFrame, None, None]:
    def read() -> Generator[_Read, None, None]:
        frames = _first(source, max_frames)
        position = 0
        while True:
            times = FrameTimes()
            with times.stage("decode"):
                frame = next(frames, None)
            if frame is None:
                return
            yield _Read(position, frame, source.damage, times)
            position += 1

    def detect(item: _Read) -> _Detected:
        return _Detected(item, pipeline.detect(item.frame.image, item.position, item.times))

    def track(items: Iterator[_Detected]) -> Generator[TrackedFrame, None, None]:
        for item, detected in items:
            yield tracked_frame(item, pipeline.track(detected, item.frame.index, item.frame.time_s))

    def step(items: Iterator[_Read]) -> Generator[TrackedFrame, None, None]:
        for item in items:
            frame = item.frame
            yield tracked_frame(item, pipeline.step(frame.image, frame.index, frame.time_s, item.times))

    def tracked_frame(item: _Read, result: FrameResult) -> TrackedFrame:
        return TrackedFrame(item.frame, result, item.damage, pipeline.lost_candidates, item.times)

    source.stop_when(chain.is_left)
    with chain:
        frames = chain.ahead(read())
        results = track(chain.ahead(chain.map(detect, frames, detect_workers))) if detect_workers else step(frames)
        for tracked in chain.ahead(results):
            yield tracked
            if timer is not None:
                timer.end_frame(tracked.times)
