"""Writes a split to disk: pictures or videos in several processes, then the annotations."""
from __future__ import annotations

import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import cv2

from stmask_deploy.atomic import cannot_write
from stmask_deploy.errors import InputError, StmaskError
from stmask_deploy.spawning import spawning

from .annotations import Track, VideoAnnotation, View, split_json, view_of
from .arrays import Image
from .clips import Clip, render
from .split_folder import SplitFolder
from .splits import Split
from .video import write_video

JPEG_QUALITY = 95
MAX_WORKERS = 61 if sys.platform == "win32" else 10_000  # that Python can wait for


@dataclass(frozen=True)
class ClipTask:
    """One clip to write, small enough to send to another process."""

    split: Split
    index: int
    num_frames: int
    size: tuple[int, int]
    folder: Path
    as_video: bool

    def __call__(self) -> VideoAnnotation:
        return write_clip(render(self.split, self.index, self.num_frames, self.size), self.folder, self.as_video)


def write_split(split: Split, folder: Path, *, num_clips: int | None = None, num_frames: int | None = None,
                size: tuple[int, int], as_video: bool = False, workers: int = 1, overwrite: bool = False,
                advance: Callable[[], None] = lambda: None) -> Path:
    """Write the clips of a split and their annotations.

    Args:
        split: which one; it supplies the defaults for the numbers of clips and frames.
        folder: receives `JPEGImages` or `videos`, and `instances.json`.
        num_clips, num_frames: from 1 to `MAX_CLIPS` and `MAX_FRAMES` of `clips`.
        size: (height, width) in pixels; even for videos.
        as_video: write one video per clip instead of pictures. The annotations still name single frames.
        workers: number of processes; the result is the same for any number.
        overwrite: replace a split that was generated earlier, once all clips are written.
        advance: called after every clip.

    Returns:
        The path of `instances.json`, which is written last.

    Raises:
        OutputError: the split exists already, another run writes to it, or it cannot be written.
        InputError: the size or a number is not possible.
    """
    if as_video and (size[0] % 2 or size[1] % 2):
        raise InputError(f"videos need even sides, got {size[0]}x{size[1]}")
    target = SplitFolder(folder, split, as_video)
    target.check(overwrite)
    num_clips, num_frames = num_clips or split.num_clips, num_frames or split.num_frames
    render(split, num_clips - 1, num_frames, size)  # rejects what is not possible before any file is touched
    with target.unfinished(overwrite) as clips:
        tasks = [ClipTask(split, index, num_frames, size, clips, as_video) for index in range(num_clips)]
        videos = []
        with closing(_run(tasks, workers)) as written:  # nobody writes any more when the folder of the clips goes
            for video in written:
                videos.append(video)
                advance()
        content = json.dumps(split_json(split.name, videos), separators=(",", ":")).encode("ascii")
        target.replace(content)
    return target.annotations


def write_clip(clip: Clip, folder: Path, as_video: bool = False) -> VideoAnnotation:
    """Write the frames of a clip into a folder for clips and return its annotation.

    Raises:
        OutputError: it cannot be written.
    """
    height, width = clip.size
    views: list[list[View | None]] = [[] for _ in clip.ids]
    file_names = [f"{clip.name}/{index:05d}.jpg" for index in range(clip.num_frames)]
    if as_video:
        write_video(folder / f"{clip.name}.mp4", _images(clip, views))
    else:
        _write_pictures(folder, file_names, _images(clip, views))
    tracks = [Track(int(class_id), seen) for class_id, seen in zip(clip.class_ids, views, strict=True) if any(seen)]
    return VideoAnnotation(height, width, file_names, tracks)


def _images(clip: Clip, views: list[list[View | None]]) -> Iterator[Image]:
    """The frames' pictures; the views of the objects are appended to `views`."""
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


def _run(tasks: list[ClipTask], workers: int) -> Generator[VideoAnnotation, None, None]:
    """Yield the results in the order of the tasks."""
    if workers == 1:
        yield from (task() for task in tasks)
        return
    # Forked processes could inherit a lock held by one of OpenCV's or NumPy's threads, which is never released.
    count = min(workers, len(tasks), MAX_WORKERS)
    with ExitStack() as stack:
        try:
            with spawning():
                pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _start_worker)
                stack.callback(pool.shutdown, cancel_futures=True)
                written = pool.map(ClipTask.__call__, tasks)
        except OSError as error:
            raise StmaskError(f"no processes can be started ({error}); use --workers 1") from error
        yield from written


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it could not be put off
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cv2.setNumThreads(1)


def _end_with_parent() -> None:
    """A pool's worker waits for tasks at a pipe whose other end it holds too, so it never sees the parent's end."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
