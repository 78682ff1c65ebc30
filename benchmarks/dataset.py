"""Datasets that benchmarks measure on: folders with instances.json and JPEGImages in YouTube-VIS format."""
from __future__ import annotations

from pathlib import Path

from stmask_deploy.datasets.annotations import Annotations, read_annotations
from stmask_deploy.datasets.frames import FRAMES_FOLDER, check_frames


def open_dataset(folder: Path, max_videos: int | None = None, skip: int = 0) -> tuple[Annotations, Path]:
    """(annotations, folder of the frames) of at most `max_videos` videos after the first `skip`."""
    annotations = read_annotations(folder / "instances.json")
    if skip or max_videos is not None:
        videos = annotations.videos[skip:][:max_videos]
        ids = {video.id for video in videos}
        annotations = Annotations(annotations.path, annotations.categories, videos,
                                  tuple(track for track in annotations.tracks if track.video_id in ids))
    check_frames(annotations, folder / FRAMES_FOLDER, "stmask-synth without --video writes pictures")
    return annotations, folder / FRAMES_FOLDER
