"""A source through a pipeline, in one of two modes: frame by frame, or with several frames in flight."""
from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from stmask_deploy.errors import InputError

from .detector import DetectedFrame
from .frame_source import Damage, Frame, FrameSource
from .overlap import Overlap
from .pipeline import Pipeline
from .result import FrameResult
from .timing import Timer

MODES = ("auto", "latency", "throughput")
DEPTH = 2  # frames that wait between two stages: enough to bridge an uneven stage, and memory stays small
# Threads that detect where graphs may overlap: one prepares or suppresses while the frame graph runs for another. What
# the host does for a frame takes about as long as a GPU, so that with two of them a GPU often has nothing to do.
HOST_WORKERS, DEVICE_WORKERS = 2, 3


@dataclass(frozen=True, eq=False)
class TrackedFrame:
    """A frame with its result, and what was known when it was taken in."""

    frame: Frame
    result: FrameResult
    damage: Damage  # of the source, up to this frame
    lost_candidates: int  # see `Pipeline`, this frame included


class _Read(NamedTuple):
    """A frame that was read, on its way through the threads."""

    position: int
    frame: Frame
    damage: Damage
    seconds: Mapping[str, float]  # see `Timer.hand_over`


class _Detected(NamedTuple):
    read: _Read
    detected: DetectedFrame
    seconds: Mapping[str, float]


class _Tracked(NamedTuple):
    tracked: TrackedFrame
    seconds: Mapping[str, float]


def check_run(mode: str, max_frames: int | None) -> None:
    """Refuse what no run can be asked for.

    Raises:
        InputError: `mode` is not known, or `max_frames` is not a positive whole number.
    """
    if mode not in MODES:
        raise InputError(f"mode {mode!r} is not known; known: {', '.join(MODES)}")
    if max_frames is not None and not (isinstance(max_frames, int) and max_frames > 0):
        raise InputError(f"max_frames must be a positive whole number, got {max_frames!r}")


def is_overlapped(mode: str, source: FrameSource) -> bool:
    """Whether `mode` keeps several frames of `source` in flight; auto does where they are read from disk."""
    return mode == "throughput" or (mode == "auto" and source.kind in ("video", "folder"))


def track_in_turn(pipeline: Pipeline, source: FrameSource, max_frames: int | None,
                  timer: Timer) -> Generator[TrackedFrame, None, None]:
    """Each frame is read when it is asked for, and finished before the next one is read."""
    frames = islice(source, max_frames)
    while True:
        with timer.stage("decode"):
            frame = next(frames, None)
        if frame is None:
            return
        result = pipeline.step(frame.image, frame.index, frame.time_s)
        yield TrackedFrame(frame, result, source.damage, pipeline.lost_candidates)
        timer.end_frame()


def track_overlapped(pipeline: Pipeline, source: FrameSource, max_frames: int | None, timer: Timer,
                     detect_workers: int) -> Generator[TrackedFrame, None, None]:
    """The same results in the same order; reading and the rest run in threads of their own, ahead.

    Detection has `detect_workers` threads. With 0 it shares one with tracking, as is best where only one graph runs at
    a time (see `Bundle.may_overlap`).

    The reader of this generator is the last stage. However it ends - read out, closed, or by an exception of any stage,
    which is raised here behind the frames before it - no thread is left, and nobody reads the source any more. Only
    KeyboardInterrupt waits no longer than a moment, and the garbage collector not at all: threads end behind it, each
    with what it has in hand.
    """
    overlap = Overlap(DEPTH)
    tracked = _overlapped(overlap, pipeline, source, max_frames, timer, detect_workers)
    overlap.watch(tracked)
    return tracked


def _overlapped(overlap: Overlap, pipeline: Pipeline, source: FrameSource, max_frames: int | None, timer: Timer,
                detect_workers: int) -> Generator[TrackedFrame, None, None]:
    def read() -> Generator[_Read, None, None]:
        frames = islice(source, max_frames)
        position = 0
        while True:
            with timer.stage("decode"):
                frame = next(frames, None)
            if frame is None:
                return
            yield _Read(position, frame, source.damage, timer.hand_over())
            position += 1

    def detect(item: _Read) -> _Detected:
        timer.take_over(item.seconds)
        detected = pipeline.detect(item.frame.image, item.position)
        return _Detected(item, detected, timer.hand_over())

    def track(items: Iterator[_Detected]) -> Generator[_Tracked, None, None]:
        for (_, frame, damage, _), detected, seconds in items:
            timer.take_over(seconds)
            result = pipeline.track(detected, frame.index, frame.time_s)
            yield _Tracked(TrackedFrame(frame, result, damage, pipeline.lost_candidates), timer.hand_over())

    with overlap:
        frames = overlap.ahead(read())
        detected = overlap.ahead(overlap.map(detect, frames, detect_workers)) if detect_workers else map(detect, frames)
        for tracked, seconds in overlap.ahead(track(detected)):
            timer.take_over(seconds)
            yield tracked
            timer.end_frame()
