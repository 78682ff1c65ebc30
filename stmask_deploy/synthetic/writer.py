"""Writes a split to disk: pictures by several processes, annotations at last."""
from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cv2

from stmask_deploy.atomic import atomic_file, cannot_write
from stmask_deploy.errors import OutputError

from .annotations import DESCRIPTION, Track, VideoAnnotation, View, split_json, view_of
from .clips import Clip, render
from .splits import Split

JPEG_QUALITY = 95
ANNOTATIONS = "instances.json"
PICTURES = "JPEGImages"


@dataclass(frozen=True)
class ClipTask:
    """One clip to be written; small enough to be sent to another process."""

    split: Split
    index: int
    num_frames: int
    size: tuple[int, int]
    pictures: Path

    def __call__(self) -> VideoAnnotation:
        return write_clip(render(self.split, self.index, self.num_frames, self.size), self.pictures)


@dataclass(frozen=True)
class SplitFolder:
    """The folder of one split: `JPEGImages/<clip>/00000.jpg` and, when all of them are there, `instances.json`."""

    path: Path
    split: Split

    @property
    def pictures(self) -> Path:
        return self.path / PICTURES

    @property
    def annotations(self) -> Path:
        return self.path / ANNOTATIONS

    def check(self, overwrite: bool) -> None:
        """Refuse what may not be replaced.

        Raises:
            OutputError: there is something already and `overwrite` is False, or it was not generated.
        """
        if self.annotations.exists():
            if not self._is_generated():
                raise OutputError(f"{self.annotations} was not written by stmask-synth; choose another output folder")
        elif not self.pictures.is_dir() or not any(self.pictures.iterdir()):
            return
        if not overwrite:
            raise OutputError(f"{self.path} exists already; use --overwrite (overwrite=True) or another output folder")

    def clear(self) -> None:
        """Make the folder, without any clip of an earlier run.

        The annotations go first: what is left by an interruption does not look complete. Other files stay.
        """
        try:
            self.pictures.mkdir(parents=True, exist_ok=True)
            self.annotations.unlink(missing_ok=True)
            for folder in self.pictures.iterdir():
                if re.fullmatch(rf"{re.escape(self.split.name)}_\d{{4,}}", folder.name):
                    shutil.rmtree(folder)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _is_generated(self) -> bool:
        with suppress(OSError, ValueError, AttributeError):
            content = json.loads(self.annotations.read_bytes())
            return bool(content.get("info", {}).get("description") == DESCRIPTION)
        return False


def write_split(split: Split, folder: Path, *, num_clips: int | None = None, num_frames: int | None = None,
                size: tuple[int, int], workers: int = 1, overwrite: bool = False,
                advance: Callable[[], None] = lambda: None) -> Path:
    """Write the clips of a split and their annotations.

    Args:
        split: which; its numbers of clips and frames hold where no others are given.
        folder: gets `JPEGImages` and `instances.json`.
        num_clips, num_frames: at least 1.
        size: (height, width) in pixels.
        workers: processes; the result is the same for any number.
        overwrite: replace a split that was generated earlier.
        advance: called after every clip.

    Returns:
        The path of `instances.json`, which appears when everything else is written.

    Raises:
        OutputError: the split is there already, or it cannot be written.
        InputError: the size is not possible.
    """
    target = SplitFolder(folder, split)
    target.check(overwrite)
    num_frames = num_frames or split.num_frames
    tasks = [ClipTask(split, index, num_frames, size, target.pictures) for index in range(num_clips or split.num_clips)]
    render(split, 0, num_frames, size)  # an impossible size is refused before anything is touched
    target.clear()
    videos = []
    for video in _run(tasks, workers):
        videos.append(video)
        advance()
    with atomic_file(target.annotations) as file:
        file.write(json.dumps(split_json(split.name, videos), separators=(",", ":")).encode("ascii"))
    return target.annotations


def write_clip(clip: Clip, pictures: Path) -> VideoAnnotation:
    """Write the frames of a clip into a folder of its name and return its annotation."""
    height, width = clip.size
    views: list[list[View | None]] = [[] for _ in clip.ids]
    file_names = [f"{clip.name}/{index:05d}.jpg" for index in range(clip.num_frames)]
    try:
        (pictures / clip.name).mkdir()
        for name, frame in zip(file_names, clip, strict=True):
            _, encoded = cv2.imencode(".jpg", frame.image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            (pictures / name).write_bytes(encoded.tobytes())
            for seen, mask in zip(views, frame.masks, strict=True):
                seen.append(view_of(mask))
    except OSError as error:
        raise cannot_write(pictures / clip.name, error) from error
    tracks = [Track(int(class_id), seen) for class_id, seen in zip(clip.class_ids, views, strict=True) if any(seen)]
    return VideoAnnotation(height, width, file_names, tracks)


def _run(tasks: list[ClipTask], workers: int) -> Iterator[VideoAnnotation]:
    """The results in the order of the tasks."""
    if workers == 1:
        yield from (task() for task in tasks)
        return
    # Forked processes can inherit a lock of OpenCV's or NumPy's threads that nobody will release.
    pool = ProcessPoolExecutor(min(workers, len(tasks)), multiprocessing.get_context("spawn"), _start_worker)
    try:
        yield from pool.map(ClipTask.__call__, tasks)
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to every process: the first one ends the others
    cv2.setNumThreads(1)


def available_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
