"""Recording the graphs' inputs in an f32 run on a video, for int8 calibration, and the run that int8 is judged by."""
from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stmask_deploy.errors import InputError
from stmask_deploy.evaluation.run_file import Row, RunFile
from stmask_deploy.runtime.backends import Backend, Value
from stmask_deploy.runtime.delegating_backend import DelegatingBackend
from stmask_deploy.runtime.loading import Bundle, open_bundle
from stmask_deploy.runtime.model import Model
from stmask_deploy.runtime.options import RunOptions
from stmask_deploy.runtime.result import FrameResult
from stmask_deploy.runtime.sources import open_source
from stmask_deploy.wording import counted

Feed = Mapping[str, NDArray[Any]]  # one call's inputs, by name

MIN_FRAMES = 2  # the temporal graph reads two


@dataclass(frozen=True)
class Recording:
    """Inputs of the graphs on the calibration clip, and the results of the f32 run."""

    feeds: Mapping[str, tuple[Feed, ...]]  # role -> calls, spread evenly over the clip
    run: RunFile


class EvenSample:
    """Keeps at most `size` of the items added, evenly spaced, without knowing their number in advance."""

    def __init__(self, size: int) -> None:
        self.kept: list[Any] = []
        self._size, self._step, self._seen = size, 1, 0

    def add(self, thing: Any) -> None:
        """Add the next item; may drop every second one kept so far."""
        if self._seen % self._step == 0:
            if len(self.kept) == self._size:
                self.kept = self.kept[::2]
                self._step *= 2
            if self._seen % self._step == 0:
                self.kept.append(thing)
        self._seen += 1


class RecordingBackend(DelegatingBackend):
    """A `Backend` that runs an opened graph and records a sample of its inputs."""

    def __init__(self, graph: Backend, size: int) -> None:
        super().__init__(graph)
        self.sample = EvenSample(size)

    def run(self, inputs: Mapping[str, Value], outputs: Sequence[str] | None = None,
            keep: Collection[str] = ()) -> dict[str, Value]:
        """See `Backend.run`."""
        self.sample.add({name: np.asarray(value) for name, value in inputs.items()})
        return super().run(inputs, outputs, keep)


def record(folder: Path, video: Path, num_frames: int, roles: Collection[str]) -> Recording:
    """Track `video` in f32 with ONNX Runtime on the CPU and record the graphs' inputs.

    Args:
        folder: the bundle.
        video: file or image folder.
        num_frames: maximum number of calls kept per graph; at least half of it if the video is long enough.
        roles: the graphs to record.

    Raises:
        InputError: the video cannot be read, is damaged, has fewer than `MIN_FRAMES` frames, or nothing is tracked.
    """
    bundle = open_bundle(folder, device="cpu")
    recorders: dict[str, Any] = {role: RecordingBackend(getattr(bundle, role), num_frames) for role in roles}
    run = track_clip(replace(bundle, **recorders), video)
    check_length(video, len(run.frames))
    if not any(run.frames) or not all(recorder.sample.kept for recorder in recorders.values()):
        raise InputError(f"calibration: nothing is tracked on {video}; take a video on which the model finds objects")
    return Recording({role: tuple(recorder.sample.kept) for role, recorder in recorders.items()}, run)


def check_length(video: Path, num_frames: int) -> None:
    """Raise InputError if `video` has fewer than `MIN_FRAMES` frames."""
    if num_frames < MIN_FRAMES:
        raise InputError(f"calibration: {video} has {counted(num_frames, 'frame')}, at least {MIN_FRAMES} are needed")


def track_clip(bundle: Bundle, video: Path) -> RunFile:
    """Track a video and return all results.

    Raises:
        InputError: the video cannot be read completely.
    """
    model = Model(bundle, RunOptions(memory="exact"))
    with open_source(video) as source:
        # Mode latency, so that inputs are recorded in frame order.
        rows = [tuple(_rows(tracked.result)) for tracked in model.track_frames(source, mode="latency")]
        if source.damage.is_damaged:
            raise InputError(f"calibration: {video} is damaged ({source.damage}); take one that can be read as a whole")
        return RunFile(video, video.name, source.height, source.width, tuple(rows))


def _rows(result: FrameResult) -> Iterable[Row]:
    columns = zip(result.ids.tolist(), result.class_ids.tolist(), result.labels, result.scores.tolist(),
                  result.boxes_px.tolist(), result.segmentations, strict=True)
    return (Row(identity, class_id, label, score, tuple(box), segmentation)
            for identity, class_id, label, score, box, segmentation in columns)
