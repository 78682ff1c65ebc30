"""Sources of results: a YouTube-VIS list, the results of one video, or a folder with the results of many videos."""
from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stmask_deploy.runtime.folder_names import safe_name

from ..datasets.annotations import Annotations, Video
from ..datasets.record import Record, read_json
from ..errors import InputError
from ..wording import counted
from .run_file import RESULTS_NAME, RunFile, read_run_file


@dataclass(frozen=True)
class ResultList:
    """Entries of a YouTube-VIS list, and the videos they are evaluated on."""

    entries: list[dict[str, Any]]
    video_ids: tuple[int, ...]
    missing: tuple[str, ...]  # names of those videos that lack a results file, where there is one file per video


def read_result_list(path: Path, annotations: Annotations, chosen: Sequence[str] = ()) -> ResultList:
    """Read results in any of the supported forms.

    Args:
        path: `results.json` (a list for many videos, or stmask-run's for one), `results.jsonl` or the folder it is in
            (one video), or a folder of subfolders named after the videos, each with a `results.jsonl`.
        annotations: the dataset.
        chosen: ids or names of the videos to evaluate. By default a list or a folder is evaluated on all videos, and
            one video's results on the video named like their source, or else on the only video in the dataset.

    Raises:
        InputError: there are no results, or it is unclear which videos they belong to.
    """
    videos = _select(annotations, chosen)
    if path.suffix == ".jsonl" or os.path.isfile(path / RESULTS_NAME):
        run = read_run_file(path)
        if len(chosen) > 1:
            raise InputError(f"{run.path} holds the results of one video; give --video once")
        video = videos[0] if chosen else _video_of(run, annotations)
        return ResultList(_entries(run, video, annotations), (video.id,), ())
    if os.path.isdir(path):
        return _read_folder(path, annotations, videos)
    entries = read_json(path)
    if not isinstance(entries, list):
        raise InputError(f"{path} is not a result list; give results.json with a list of entries, results.jsonl, or a "
                         "folder with results.jsonl for every video")
    if _is_of_one_run(entries, annotations):
        return _of_one_run(entries, path, annotations, videos)
    return ResultList(entries, tuple(video.id for video in videos), ())


def _is_of_one_run(entries: list[Any], annotations: Annotations) -> bool:
    """Whether a list was written by stmask-run, for a single video with id 0."""
    return (bool(entries) and all(isinstance(entry, dict) and entry.get("video_id") == 0 for entry in entries)
            and all(video.id != 0 for video in annotations.videos))


def _of_one_run(entries: list[dict[str, Any]], path: Path, annotations: Annotations, videos: Sequence[Video]
                ) -> ResultList:
    """Replace the list's class positions and video id with the ids of the dataset."""
    if len(videos) != 1:
        raise InputError(f"{path} holds the results of one video, {annotations.path} has {len(annotations.videos)}; "
                         f"say which with --video ID_OR_NAME, or give the {RESULTS_NAME} beside it")
    ids = [category.id for category in annotations.categories]
    numbered = []
    for number, entry in enumerate(entries):
        position = Record(entry, f"{path}, entry {number}").whole_number("category_id", minimum=1)
        if position > len(ids):
            raise InputError(f"{path}, entry {number}: category_id {position}, but the dataset has {len(ids)} "
                             "categories; use a model trained on it")
        numbered.append({**entry, "video_id": videos[0].id, "category_id": ids[position - 1]})
    return ResultList(numbered, (videos[0].id,), ())


def _read_folder(path: Path, annotations: Annotations, videos: Sequence[Video]) -> ResultList:
    files = sorted(path.glob(f"*/{RESULTS_NAME}"))
    if not files:
        raise InputError(f"{path} holds no folders with {RESULTS_NAME}; they are named as the videos of "
                         f"{annotations.path}")
    names = {file: _video_name(file.parent.name, annotations) for file in files}
    _check_folder_names(list(names.values()), path, annotations)
    by_id: dict[int, Path] = {}
    for file, name in names.items():
        other = by_id.setdefault(find_video(annotations, name).id, file)
        if other != file:
            raise InputError(f"{path}: {other.parent.name} and {file.parent.name} are both of video {name}; "
                             "take one of them away")
    entries = [entry for video in videos if video.id in by_id
               for entry in _entries(read_run_file(by_id[video.id]), video, annotations)]
    missing = tuple(video.name for video in videos if video.id not in by_id)
    return ResultList(entries, tuple(video.id for video in videos), missing)


def _video_name(folder: str, annotations: Annotations) -> str:
    """The name of the video for which stmask-run would choose this folder; that of the folder if there is not one."""
    names = [video.name for video in annotations.videos if safe_name(video.name) == folder]
    return names[0] if len(names) == 1 else folder


def _check_folder_names(names: Sequence[str], path: Path, annotations: Annotations) -> None:
    """Require that all or none are names of videos: a number may be one video's name and another's id."""
    named = [name for name in names if _named(annotations, name)]
    others = [name for name in names if name not in named]
    if named and others:
        raise InputError(f"{path}: {named[0]!r} is the name of a video of {annotations.path}, {others[0]!r} is not; "
                         "name every folder as its video, or every one by its id")


def _entries(run: RunFile, video: Video, annotations: Annotations) -> list[dict[str, Any]]:
    if (run.height, run.width) != (video.height, video.width):
        raise InputError(f"{run.path} is of frames of {run.width}x{run.height} pixels, video {video.name} has "
                         f"{video.width}x{video.height}")
    if len(run.frames) != video.length:
        raise InputError(f"{run.path} has {counted(len(run.frames), 'frame')}, video {video.name} has {video.length}; "
                         "run stmask-run over all pictures of the video")
    run.check_labels([category.name for category in annotations.categories], annotations.path)
    return run.entries(video.id, [category.id for category in annotations.categories])


def _select(annotations: Annotations, chosen: Sequence[str]) -> tuple[Video, ...]:
    found = {video.id: video for video in (find_video(annotations, name) for name in chosen)}
    return tuple(found.values()) if chosen else annotations.videos


def _video_of(run: RunFile, annotations: Annotations) -> Video:
    found = videos_of(run.source, annotations)
    if len(found) != 1:
        raise InputError(f"{run.path}: its source {run.source!r} is the name of {len(found) or 'none'} of the "
                         f"{len(annotations.videos)} videos of {annotations.path}; say which with --video ID_OR_NAME")
    return found[0]


def videos_of(source: str, annotations: Annotations) -> list[Video]:
    """The videos named like a video file or folder `source`; the only video, whatever its name."""
    if len(annotations.videos) == 1:
        return list(annotations.videos)
    return _named(annotations, source) or _named(annotations, Path(source).stem)


def find_video(annotations: Annotations, name: str) -> Video:
    """The video with this name, or else the one with this id.

    Raises:
        InputError: there is no such video, or more than one.
    """
    videos = annotations.videos
    found = _named(annotations, name) or [video for video in videos if name == str(video.id)]
    if len(found) != 1:
        raise InputError(f"{name!r} is the name or id of {len(found) or 'none'} of the {len(videos)} videos of "
                         f"{annotations.path}; the first is named {videos[0].name!r} and has id {videos[0].id}")
    return found[0]


def _named(annotations: Annotations, name: str) -> list[Video]:
    return [video for video in annotations.videos if video.name == name]
