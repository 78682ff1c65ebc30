"""The Python API: `load` a bundle, `track` a source or `step` through frames of your own."""
from __future__ import annotations

import math
import os
from collections.abc import Generator
from contextlib import closing
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stmask_deploy.bundle import BundleDescription, read_description
from stmask_deploy.errors import InputError
from stmask_deploy.pretrained import demo_bundle
from stmask_deploy.wording import shown

from .frame_source import Damage, FrameSource
from .loading import Bundle, open_bundle
from .options import RunOptions
from .pipeline import Pipeline
from .resolved_options import ResolvedOptions
from .result import FrameResult
from .sources import open_source, to_float
from .timing import FrameTimes, StageTimer
from .tracking import (
    WORKERS,
    TrackedFrame,
    check_run,
    is_overlapped,
    track_in_turn,
    track_overlapped,
)

STEP_FPS = 30.0  # frame rate assumed for frames without a time


def load(bundle: str | Path | None = None, backend: str = "onnxruntime", device: str = "auto", precision: str = "f32",
         threads: int | None = None, timer: StageTimer | None = None, cache: str | Path | None = None,
         **options: Any) -> Model:
    """Open an exported bundle.

    Args:
        bundle: folder written by `stmask-export`; None is the demo model included in the package.
        backend: onnxruntime | openvino.
        device: auto | cpu | cuda, cuda-graph, tensorrt (onnxruntime) | gpu (openvino). auto takes the fastest that
            works without preparation; cuda-graph is CUDA with kernel launches captured once and replayed.
        precision: f32 | bf16 | f16 | int8; bf16 with openvino only; int8, and f16 with onnxruntime, only if the bundle
            has such graphs.
        threads: CPU threads; None leaves the choice to the backend.
        cache: folder for what openvino and tensorrt compile, to start faster next time; None keeps nothing.
        timer: collects the times of every stage of every frame.
        options: fields of `RunOptions`, for instance `tracker="frame"` to run without temporal fusion.

    Raises:
        InputError: the bundle or an option cannot be used.
        DeviceError: the backend is not installed, or would not use the requested device or precision.
    """
    known = [field.name for field in fields(RunOptions)]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise InputError(f"option {unknown[0]} is not known; known: {', '.join(known)}")
    if timer is not None and not isinstance(timer, StageTimer):
        raise InputError(f"timer must be a StageTimer, got {shown(timer)}")
    chosen = RunOptions(**options)
    folder = demo_bundle() if bundle is None else _folder("bundle", bundle)
    resolved = chosen.resolve(read_description(folder), is_live=False)
    opened = open_bundle(folder, backend, device=device, precision=precision, threads=threads,
                         cache=None if cache is None else _folder("cache", cache),
                         with_temporal=resolved.propagates, is_whole=False)
    return Model(opened, chosen, timer)


def _folder(name: str, value: str | Path) -> Path:
    """The path that an argument names, which must not be empty: that would be the working directory."""
    if value == "" or not isinstance(value, (str, os.PathLike)):
        raise InputError(f"{name} must be the path of a folder, got {shown(value)}")
    return Path(value).absolute()  # graphs may be opened later, when the process has another working directory


class Model:
    """An opened bundle and one video in progress.

    Not thread-safe: `fork` one model for each video that runs at the same time.
    """

    def __init__(self, bundle: Bundle, options: RunOptions, timer: StageTimer | None = None) -> None:
        self._bundle = bundle
        self._asked = options
        self._timer = timer
        self.reset()

    @property
    def description(self) -> BundleDescription:
        """The bundle's description."""
        return self._bundle.description

    @property
    def device(self) -> str:
        """What the graphs actually run on, for display."""
        return self._bundle.frame.device

    @property
    def leaves_cores(self) -> bool:
        """Whether CPU cores are idle while a graph runs."""
        return self._bundle.may_overlap

    @property
    def _detect_workers(self) -> int:
        return WORKERS if self._bundle.may_overlap else 0

    @property
    def options(self) -> ResolvedOptions:
        """The options of the video in progress, with all decisions made."""
        return self._options

    @property
    def lost_candidates(self) -> int:
        """Number of anchors above the candidate threshold, since `reset`, that did not fit into the frame graph's rows.

        Only counted in frames where they could have changed the result; if not 0, export with more `--max-candidates`.
        """
        return self._lost_candidates

    @property
    def damage(self) -> Damage:
        """Damage of the source of the last `track`, up to the last frame it yielded."""
        return self._damage

    def fork(self) -> Model:
        """A model for another video that shares the graphs, options and timer.

        Cheap; the fork may run in another thread at the same time.
        """
        return Model(self._bundle, self._asked, self._timer)

    def reset(self, is_live: bool = False) -> None:
        """Forget all objects: the next frame is the first of another video, ids start at 0.

        Args:
            is_live: the video has no end, so memory is bounded unless the options say otherwise.
        """
        self._options = self._asked.resolve(self.description, is_live)
        self._lost_candidates = 0
        self._damage = Damage()
        self._forget()

    def _forget(self) -> None:
        self._pipeline = Pipeline(self._bundle, self._options)
        self._next_index = 0

    def step(self, image: NDArray[np.uint8], time_s: float | None = None) -> FrameResult:
        """Process the next frame of a video.

        Args:
            image: (H, W, 3) uint8 BGR, any size.
            time_s: seconds since the start, a finite number of any kind; None assumes 30 frames per second.

        Raises:
            InputError: `image` is not such an array, or `time_s` is not finite.
            StmaskError: a graph fails, or returns NaN or infinite values.
        """
        index, times = self._next_index, FrameTimes()
        seconds = index / STEP_FPS if time_s is None else to_float(time_s)
        if not math.isfinite(seconds):
            raise InputError(f"time_s is {shown(time_s)}; give seconds since the start, or None")
        result = self._pipeline.step(image, index, seconds, times)
        self._next_index = index + 1
        self._lost_candidates = self._pipeline.lost_candidates
        if self._timer is not None:
            self._timer.end_frame(times)
        return result

    def track(self, source: str | int | Path, *, image_fps: float = 30.0, max_frames: int | None = None,
              mode: str = "auto") -> Generator[FrameResult, None, None]:
        """Run a whole source and yield one result per frame.

        In mode `latency` each frame is read when its result is requested, and nothing runs in between. In mode
        `throughput` threads work a few frames ahead of the consumer; results and their order are the same. The threads
        end with the generator: when it is exhausted, closed or deleted, or shortly after if it is left to the garbage
        collector. Until then, do not use the model for anything else. If the generator is closed early, the threads
        have tracked frames that were never yielded, so the model is reset.

        Args:
            source: video file, folder of images, image, camera number, or address of a network stream.
            image_fps: frame rate assigned to the images of a folder.
            max_frames: stop after this many frames.
            mode: latency | throughput | auto; auto is throughput for video files and folders, latency otherwise.

        Raises:
            InputError: the source cannot be read, `mode` is unknown, or `max_frames` is not a positive whole number.
            DeviceError: the camera does not open.
            StmaskError: see `step`.
        """
        with open_source(source, image_fps=image_fps) as opened, \
                closing(self.track_frames(opened, max_frames=max_frames, mode=mode)) as frames:
            for tracked in frames:
                yield tracked.result

    def track_frames(self, source: FrameSource, *, max_frames: int | None = None,
                     mode: str = "auto") -> Generator[TrackedFrame, None, None]:
        """Like `track`, but for an already opened source, and yields each frame with its result.

        Does not close the source. Do not close it before this generator is exhausted or closed.
        """
        check_run(mode, max_frames)
        self.reset(source.is_live)
        pipeline = self._pipeline
        is_ahead = is_overlapped(mode, source)
        run = partial(track_overlapped, detect_workers=self._detect_workers) if is_ahead else track_in_turn
        is_complete = False
        try:
            with closing(run(pipeline, source, max_frames, self._timer)) as frames:
                for tracked in frames:
                    self._next_index = tracked.frame.index + 1
                    self._lost_candidates, self._damage = tracked.lost_candidates, tracked.damage
                    yield tracked
            is_complete, self._damage = True, source.damage
        finally:
            # Frames were tracked that nobody saw; after a reset, the model is no longer at this video.
            if is_ahead and not is_complete and self._pipeline is pipeline:
                self._forget()
