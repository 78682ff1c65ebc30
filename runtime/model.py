"""The Python API: `load` a bundle, `track` a source or `step` through frames of your own."""
from __future__ import annotations

import math
from collections.abc import Generator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stmask_deploy.bundle import BundleDescription, read_description
from stmask_deploy.errors import InputError
from stmask_deploy.pretrained import demo_bundle

from .loading import Bundle, open_bundle
from .options import RunOptions
from .pipeline import Pipeline
from .result import FrameResult
from .sources import Damage, FrameSource, open_source
from .timing import NoTimer, Timer
from .tracking import (
    DEVICE_WORKERS,
    HOST_WORKERS,
    TrackedFrame,
    check_run,
    is_overlapped,
    track_in_turn,
    track_overlapped,
)

STEP_FPS = 30.0  # frames a second assumed for frames that come without a time


def load(bundle: str | Path | None = None, backend: str = "onnxruntime", device: str = "auto", precision: str = "f32",
         threads: int | None = None, timer: Timer | None = None, cache: str | Path | None = None,
         **options: Any) -> Model:
    """Open an exported bundle.

    Args:
        bundle: folder written by `stmask-export`; None is the demo model that comes with the package.
        backend: onnxruntime | openvino.
        device: auto | cpu | cuda, cuda-graph, tensorrt (onnxruntime) | gpu (openvino). auto takes the fastest that
            works without preparation; cuda-graph is CUDA with launches that are recorded once and replayed.
        precision: f32 | bf16 | f16 | int8; bf16 with openvino only, int8 where the bundle has such graphs.
        threads: CPU threads; None leaves the choice to the backend.
        cache: folder for what openvino and tensorrt compile, so that the next start takes less; None keeps nothing.
        timer: is told about every stage of every frame, see `timing.StageTimer`.
        options: fields of `RunOptions`, for instance `tracker="frame"` to run without temporal fusion.

    Raises:
        InputError: the bundle or an option cannot be used.
        DeviceError: the backend is not installed, or device or precision are not what would be used.
    """
    chosen = RunOptions(**options)
    folder = demo_bundle() if bundle is None else Path(bundle)
    resolved = chosen.resolve(read_description(folder), is_live=False)
    opened = open_bundle(folder, backend, device=device, precision=precision, threads=threads,
                         cache=None if cache is None else Path(cache),
                         with_temporal=resolved.tracker != "frame", is_whole=False)
    return Model(opened, chosen, timer or NoTimer())


class Model:
    """An opened bundle and one video in progress.

    Not for several threads at once: `fork` one model for each video that runs at the same time.
    """

    def __init__(self, bundle: Bundle, options: RunOptions, timer: Timer) -> None:
        self._bundle = bundle
        self._asked = options
        self.timer = timer
        self.reset()

    @property
    def description(self) -> BundleDescription:
        """What the bundle holds."""
        return self._bundle.description

    @property
    def device(self) -> str:
        """What the graphs really run on, in words."""
        return self._bundle.frame.device

    @property
    def leaves_cores(self) -> bool:
        """Whether cores have nothing to do while a graph runs."""
        return self._bundle.may_overlap

    @property
    def _detect_workers(self) -> int:
        if not self._bundle.may_overlap:
            return 0
        return HOST_WORKERS if self._bundle.frame.is_on_host else DEVICE_WORKERS

    @property
    def options(self) -> RunOptions:
        """Everything decided, for the video in progress."""
        return self._options

    @property
    def lost_candidates(self) -> int:
        """Anchors over the candidate threshold, since `reset`, that the frame graph had no row left for.

        Counted in frames where they could have changed the result: export with more `--max-candidates`.
        """
        return self._lost_candidates

    @property
    def damage(self) -> Damage:
        """What could not be read of the source of the last `track`, up to the last frame that it gave."""
        return self._damage

    def fork(self) -> Model:
        """A model for another video, on the same graphs and with the same options and timer.

        It costs next to nothing, and may run in another thread at the same time.
        """
        return Model(self._bundle, self._asked, self.timer)

    def reset(self, is_live: bool = False) -> None:
        """Forget all objects: the next frame is the first of another video, ids start at 0.

        Args:
            is_live: the video has no end. Memory is then bounded, unless the options say otherwise.
        """
        self._options = self._asked.resolve(self.description, is_live)
        self._lost_candidates = 0
        self._damage = Damage()
        self._forget()

    def _forget(self) -> None:
        self._pipeline = Pipeline(self._bundle, self._options, self.timer)
        self._next_index = 0

    def step(self, image: NDArray[np.uint8], time_s: float | None = None) -> FrameResult:
        """Take in the next frame of a video.

        Args:
            image: (H, W, 3) uint8 BGR, any size.
            time_s: seconds since the start, finite; None counts 30 frames a second.

        Raises:
            InputError: `image` is not such an array, or `time_s` no such number.
        """
        if time_s is not None and not math.isfinite(time_s):
            raise InputError(f"time_s is {time_s}; give seconds since the start, or None")
        index = self._next_index
        result = self._pipeline.step(image, index, index / STEP_FPS if time_s is None else time_s)
        self._next_index = index + 1
        self._lost_candidates = self._pipeline.lost_candidates
        return result

    def track(self, source: str | int | Path, *, image_fps: float = 30.0, max_frames: int | None = None,
              mode: str = "auto") -> Generator[FrameResult, None, None]:
        """Run a whole source: one result a frame.

        In mode `latency` a frame is read when its result is asked for, and nothing happens in between. In mode
        `throughput` threads work a few frames ahead of the reader; results and their order are the same. The threads
        end with the iterator: when it is read out, closed or dropped; only if it is the garbage collector that finds
        it, they end a moment later. Until then the model must not be used otherwise. Left early, they have tracked
        frames that the reader never saw, and the model is reset.

        Args:
            source: video file, folder of images, image, or camera number.
            image_fps: frames a second that the images of a folder stand for.
            max_frames: stop after that many.
            mode: latency | throughput | auto: throughput for video files and folders, latency otherwise.

        Raises:
            InputError: the source cannot be read, `mode` is not known, or `max_frames` is no positive whole number.
            DeviceError: the camera does not open.
        """
        with open_source(source, image_fps=image_fps) as opened, \
                closing(self.track_frames(opened, max_frames=max_frames, mode=mode)) as frames:
            for tracked in frames:
                yield tracked.result

    def track_frames(self, source: FrameSource, *, max_frames: int | None = None,
                     mode: str = "auto") -> Generator[TrackedFrame, None, None]:
        """As `track`, for a source that is open already: every frame with its result.

        The source is not closed. It must not be closed before this generator is read out or closed itself.
        """
        check_run(mode, max_frames)
        self.reset(source.is_live)
        is_ahead = is_overlapped(mode, source)
        run = partial(track_overlapped, detect_workers=self._detect_workers) if is_ahead else track_in_turn
        is_complete = False
        try:
            with closing(run(self._pipeline, source, max_frames, self.timer)) as frames:
                for tracked in frames:
                    self._next_index = tracked.frame.index + 1
                    self._lost_candidates, self._damage = tracked.lost_candidates, tracked.damage
                    yield tracked
            is_complete, self._damage = True, source.damage
        finally:
            if is_ahead and not is_complete:  # frames were tracked that nobody saw
                self._forget()
