"""Writes a split to disk: pictures or videos by several processes, annotations at last."""
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
from stmask_deploy.errors import InputError, OutputError

from .annotations import DESCRIPTION, Track, VideoAnnotation, View, split_json, view_of
from .arrays import Image
from .clips import Clip, render
from .splits import Split
from .video import write_video

JPEG_QUALITY = 95
ANNOTATIONS = "instances.json"
PICTURES, VIDEOS = "JPEGImages", "videos"


@dataclass(frozen=True)
class ClipTask:
    """One clip to be written; small enough to be sent to another process."""

    split: Split
    index: int
    num_frames: int
    size: tuple[int, int]
    folder: Path
    as_video: bool

    def __call__(self) -> VideoAnnotation:
        return write_clip(render(self.split, self.index, self.num_frames, self.size), self.folder, self.as_video)


@dataclass(frozen=True)
class SplitFolder:
    """The folder of one split: `JPEGImages/<clip>/00000.jpg` or `videos/<clip>.mp4` and, when all of them are there,
    `instances.json`.
    """

    path: Path
    split: Split

    @property
    def annotations(self) -> Path:
        return self.path / ANNOTATIONS

    def check(self, overwrite: bool) -> None:
        """Refuse what may not be replaced.

        Raises:
            OutputError: there is something already and `overwrite` is False, or it was not generated.
        """
        try:
            is_empty = not os.path.exists(self.annotations) and not any(self._clips())
        except OSError as error:
            raise cannot_write(self.path, error) from error
        if is_empty:
            return
        if os.path.exists(self.annotations) and not self._is_generated():
            raise OutputError(f"{self.annotations} was not written by stmask-synth; choose another output folder")
        if not overwrite:
            raise OutputError(f"{self.path} exists already; use --overwrite (overwrite=True) or another output folder")

    def clear(self, as_video: bool) -> None:
        """Make the folder, without any clip of an earlier run.

        The annotations go first: what is left by an interruption does not look complete. Other files stay.
        """
        try:
            (self.path / (VIDEOS if as_video else PICTURES)).mkdir(parents=True, exist_ok=True)
            self.annotations.unlink(missing_ok=True)
            for clip in self._clips():
                if re.fullmatch(rf"{re.escape(self.split.name)}_\d{{4,}}(\.mp4)?", clip.name):
                    clip.unlink() if clip.is_file() else shutil.rmtree(clip)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _clips(self) -> list[Path]:
        """Everything in the folders of pictures and videos."""
        folders = (self.path / PICTURES, self.path / VIDEOS)
        return [clip for folder in folders if os.path.isdir(folder) for clip in folder.iterdir()]

    def _is_generated(self) -> bool:
        with suppress(OSError, ValueError, AttributeError):
            content = json.loads(self.annotations.read_bytes())
            return bool(content.get("info", {}).get("description") == DESCRIPTION)
        return False


def write_split(split: Split, folder: Path, *, num_clips: int | None = None, num_frames: int | None = None,
                size: tuple[int, int], as_video: bool = False, workers: int = 1, overwrite: bool = False,
                advance: Callable[[], None] = lambda: None) -> Path:
    """Write the clips of a split and their annotations.

    Args:
        split: which; its numbers of clips and frames hold where no others are given.
        folder: gets `JPEGImages` or `videos`, and `instances.json`.
        num_clips, num_frames: at least 1.
        size: (height, width) in pixels; even for videos.
        as_video: write a video a clip instead of pictures. The annotations name the frames all the same.
        workers: processes; the result is the same for any number.
        overwrite: replace a split that was generated earlier.
        advance: called after every clip.

    Returns:
        The path of `instances.json`, which appears when everything else is written.

    Raises:
        OutputError: the split is there already, or it cannot be written.
        InputError: the size is not possible.
    """
    if as_video and (size[0] % 2 or size[1] % 2):
        raise InputError(f"videos need even sides, got {size[0]}x{size[1]}")
    target = SplitFolder(folder, split)
    target.check(overwrite)
    num_frames = num_frames or split.num_frames
    tasks = [ClipTask(split, index, num_frames, size, folder, as_video)
             for index in range(num_clips or split.num_clips)]
    render(split, 0, num_frames, size)  # an impossible size is refused before anything is touched
    target.clear(as_video)
    videos = []
    for video in _run(tasks, workers):
        videos.append(video)
        advance()
    with atomic_file(target.annotations) as file:
        file.write(json.dumps(split_json(split.name, videos), separators=(",", ":")).encode("ascii"))
    return target.annotations


def write_clip(clip: Clip, folder: Path, as_video: bool = False) -> VideoAnnotation:
    """Write the frames of a clip into the folder of its split and return its annotation.

    Raises:
        OutputError: they cannot be written.
    """
    height, width = clip.size
    views: list[list[View | None]] = [[] for _ in clip.ids]
    file_names = [f"{clip.name}/{index:05d}.jpg" for index in range(clip.num_frames)]
    if as_video:
        write_video(folder / VIDEOS / f"{clip.name}.mp4", _images(clip, views))
    else:
        _write_pictures(folder / PICTURES, file_names, _images(clip, views))
    tracks = [Track(int(class_id), seen) for class_id, seen in zip(clip.class_ids, views, strict=True) if any(seen)]
    return VideoAnnotation(height, width, file_names, tracks)


def _images(clip: Clip, views: list[list[View | None]]) -> Iterator[Image]:
    """The frames' pictures; what is seen in them is appended to `views`."""
    for frame in clip:
        for seen, mask in zip(views, frame.masks, strict=True):
            seen.append(view_of(mask))
        yield frame.image


def _write_pictures(folder: Path, names: list[str], images: Iterator[Image]) -> None:
    try:
        (folder / names[0]).parent.mkdir(parents=True)
        for name, image in zip(names, images, strict=True):
            _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
            (folder / name).write_bytes(encoded.tobytes())
    except OSError as error:
        raise cannot_write((folder / names[0]).parent, error) from error


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
