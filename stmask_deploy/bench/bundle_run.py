"""A bundle run on a video as `stmask-run` does it: decoding, tracking and writing."""
from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stmask_deploy.bundle import read_description
from stmask_deploy.errors import InputError, OutputError, StmaskError
from stmask_deploy.runtime.encoder_process import EncoderProcess
from stmask_deploy.runtime.loading import open_bundle
from stmask_deploy.runtime.model import Model
from stmask_deploy.runtime.options import RunOptions
from stmask_deploy.runtime.run import run_video
from stmask_deploy.runtime.sources import open_source
from stmask_deploy.runtime.timing import FrameTimes, StageTimer
from stmask_deploy.runtime.tracking import is_overlapped
from stmask_deploy.wording import counted

from .row import Job
from .watched_graph import Call, watch

RESULTS_FOLDER = "results"  # in the job's folder


@dataclass(frozen=True)
class Turn:
    """Measurements of one turn of a row. Seconds are per frame."""

    stages: tuple[Mapping[str, float], ...]  # seconds by stage, per frame in mode latency; absent: stage did not run
    frames: tuple[float, ...]  # seconds of the whole frame in mode latency, everything included
    run: tuple[float, ...]  # seconds from result to result in the row's mode, summing to the whole run
    calls: Mapping[Call, int]  # graph calls made in the frames covered by `stages`


class FrameClock(StageTimer):
    """A stage timer that also records when each frame finished."""

    def __init__(self) -> None:
        super().__init__()
        self._borders: list[float] = []  # start of the first frame, end of each

    def end_frame(self, times: FrameTimes) -> None:
        super().end_frame(times)
        self._borders += [time.perf_counter()] if self._borders else [times.start, time.perf_counter()]

    def restart(self) -> None:
        """Forget all frames."""
        self.frames.clear()
        self._borders.clear()

    def periods(self) -> list[float]:
        """Seconds from the end of one frame to the end of the next; of the first frame, from its start."""
        return [after - before for before, after in zip(self._borders, self._borders[1:], strict=False)]


class BundleRun:
    """A `Subject`: each turn runs the first frames of the video in mode latency and in the row's own mode.

    They are run once before the first turn.
    """

    def __init__(self, job: Job, encoder_process: EncoderProcess) -> None:
        start = time.perf_counter()
        options = RunOptions(**job.row.options)
        resolved = options.resolve(read_description(job.bundle), is_live=False)
        bundle = open_bundle(job.bundle, job.row.backend, device=job.row.device, precision=job.row.precision,
                             threads=job.threads, cache=job.cache, with_temporal=resolved.propagates, is_whole=False)
        self._calls: Counter[Call] = Counter()
        self._clock = FrameClock()
        self._model = Model(watch(bundle, self._calls), options, self._clock)
        self._job, self._encoder_process = job, encoder_process
        with open_source(job.video) as source:
            self._is_overlapped = is_overlapped(job.row.mode, source)
            with closing(self._model.track_frames(source, max_frames=1, mode="latency")) as frames:
                next(frames)
        self.facts: Mapping[str, Any] = {"device": self._model.device, "startup_s": time.perf_counter() - start}
        # What happens once, such as recording a GPU's work for another number of objects, belongs to no turn.
        self._pass(job.row.mode)

    def turn(self) -> Turn:
        """See `Subject.turn`.

        Raises:
            StmaskError: the video has fewer frames than a turn takes, or a graph fails.
        """
        with open_source(self._job.video) as source:
            for _ in self._model.track_frames(source, max_frames=self._job.warmup, mode="latency"):
                pass
        self._calls.clear()
        in_turn = self._pass("latency")
        calls, stages, frames = dict(self._calls), tuple(self._clock.frames), tuple(self._clock.periods())
        run = self._pass(self._job.row.mode) if self._is_overlapped else in_turn
        return Turn(stages, frames, run, calls)

    def _pass(self, mode: str) -> tuple[float, ...]:
        """Run the frames of a turn; seconds per frame, each with an equal share of the time to finalise the files."""
        job = self._job
        with open_source(job.video) as source:
            self._clock.restart()
            try:
                summary = run_video(self._model, source, job.folder / RESULTS_FOLDER, draw=job.draw,
                                    max_frames=job.frames, overwrite=True, mode=mode,
                                    encoder_process=self._encoder_process)
            except OutputError as error:
                raise OutputError(f"results cannot be written to a temporary folder ({error}); TMPDIR names another "
                                  "place for these") from error
        if summary.frames < job.frames:
            raise StmaskError(f"the video ended after {summary.frames} of {job.frames} frames; give a longer one, or "
                              "smaller --frames")
        periods = self._clock.periods()
        rest = (summary.seconds - sum(periods)) / len(periods)
        return tuple(period + rest for period in periods)


@contextmanager
def open_run(job: Job) -> Iterator[BundleRun]:
    """Open the job's bundle.

    Raises:
        InputError: the bundle, the video or an option cannot be used.
        DeviceError: the backend is not installed, or would not compute as requested.
    """
    with EncoderProcess() as encoder_process:  # its start-up is not part of a turn, nor is that of the graphs
        yield BundleRun(job, encoder_process)


def describe_video(job: Job) -> dict[str, Any]:
    """Name and size of the job's video, and a digest of its file; for a folder, of the images that a turn reads.

    Raises:
        InputError: it cannot be read, or reports fewer frames than needed.
    """
    path, needed = job.video, max(job.frames, job.warmup)
    with open_source(path) as source:
        if source.num_frames is not None and source.num_frames < needed:
            raise InputError(f"{path} has {counted(source.num_frames, 'frame')} and {needed} are needed; give "
                             "a longer video, or smaller --frames or --warmup")
        return {"name": source.name, "width": source.width, "height": source.height,
                "sha256": _digest(source.files[:job.frames])}


def _digest(paths: Sequence[Path]) -> str:
    """SHA-256 of the concatenated contents of the files."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    return digest.hexdigest()
