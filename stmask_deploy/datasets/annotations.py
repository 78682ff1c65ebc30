"""What an annotation file in YouTube-VIS format holds: YouTube-VIS 2019 and 2021, OVIS, and the generated benchmark."""
from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from ..errors import InputError
from .segmentation import Segmentation, normalise

_Value = TypeVar("_Value")
_KINDS = {int: "a whole number", str: "a text", list: "a list"}


@dataclass(frozen=True)
class Category:
    """A class of the dataset; `id` is the file's, any positive number."""

    id: int
    name: str


@dataclass(frozen=True)
class Video:
    """A video as a list of pictures."""

    id: int
    height: int  # pixels
    width: int
    length: int  # frames
    file_names: tuple[str, ...]  # (length) relative to the folder of the pictures

    @property
    def name(self) -> str:
        """The folder of its pictures, by which a video is known; the file's name where there is no folder."""
        return Path(self.file_names[0]).parent.name or Path(self.file_names[0]).stem


@dataclass(frozen=True)
class Track:
    """One object through a video; None where it is not visible."""

    id: int
    video_id: int
    category_id: int
    is_crowd: bool
    segmentations: tuple[Segmentation | None, ...]  # (length of the video)


@dataclass(frozen=True)
class Annotations:
    """A dataset; its parts refer to each other by id, all of which exist."""

    path: Path
    categories: tuple[Category, ...]  # in the order of their ids: a model's class id is the position, from 1
    videos: tuple[Video, ...]
    tracks: tuple[Track, ...]

    @property
    def has_tracks(self) -> bool:
        """Whether anything is annotated; validation files of public datasets list videos only."""
        return bool(self.tracks)

    @property
    def category_ids(self) -> tuple[int, ...]:
        """Entry i is the id in the file of a model's class i + 1."""
        return tuple(category.id for category in self.categories)

    def tracks_of(self, video_id: int) -> tuple[Track, ...]:
        """The objects of one video, in the order of the file; none for an id that is not there."""
        return self._tracks_by_video.get(video_id, ())

    @cached_property
    def _tracks_by_video(self) -> dict[int, tuple[Track, ...]]:
        by_video: dict[int, list[Track]] = {}
        for track in self.tracks:
            by_video.setdefault(track.video_id, []).append(track)
        return {video_id: tuple(tracks) for video_id, tracks in by_video.items()}


def read_annotations(path: Path) -> Annotations:
    """Read and check an annotation file.

    Raises:
        InputError: it cannot be read, is not JSON, or an entry is incomplete, contradicts another, or refers to
            something that is not there; names the file and the entry.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} is not an annotation file: expected an object with categories, videos and "
                         f"annotations, found {type(content).__name__}")
    return parse_annotations(content, path)


def parse_annotations(content: Mapping[str, Any], path: Path) -> Annotations:
    """What `read_annotations` makes of a file's content; `path` is for messages.

    Raises:
        InputError: as `read_annotations`.
    """
    categories = {entry.id: entry for entry in
                  (Category(_id(row, where), _get(row, "name", str, where))
                   for row, where in _entries(content, "categories", path))}
    videos = {entry.id: entry for entry in (_video(row, where) for row, where in _entries(content, "videos", path))}
    if not videos or not categories:
        raise InputError(f"{path} has no {'categories' if videos else 'videos'}")
    annotated = content if content.get("annotations") is not None else {"annotations": []}
    tracks = [_track(row, where, videos, categories) for row, where in _entries(annotated, "annotations", path)]
    return Annotations(path, tuple(categories[key] for key in sorted(categories)), tuple(videos.values()),
                       tuple(tracks))


def _entries(content: Mapping[str, Any], key: str, path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """The objects of one list, each with its place for messages; their ids are there and differ."""
    rows = content.get(key)
    if not isinstance(rows, list):
        raise InputError(f"{path}: expected a list {key!r}, found {type(rows).__name__}")
    seen = set()
    for position, row in enumerate(rows):
        where = f"{path}, {key}[{position}]"
        if not isinstance(row, dict):
            raise InputError(f"{where}: expected an object, found {type(row).__name__}")
        identity = _id(row, where)
        if identity in seen:
            raise InputError(f"{where}: id {identity} occurs twice")
        seen.add(identity)
        yield row, f"{where} (id {identity})"


def _video(row: dict[str, Any], where: str) -> Video:
    names = _get(row, "file_names", list, where)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise InputError(f"{where}: file_names are the paths of one or more pictures")
    height, width = _get(row, "height", int, where), _get(row, "width", int, where)
    if height < 1 or width < 1:
        raise InputError(f"{where}: a video of {width} x {height} pixels")
    length = _get({"length": len(names), **row}, "length", int, where)
    if length != len(names):
        raise InputError(f"{where}: {length} frames, but {len(names)} file_names")
    return Video(_id(row, where), height, width, length, tuple(names))


def _track(row: dict[str, Any], where: str, videos: Mapping[int, Video], categories: Mapping[int, Category]) -> Track:
    video = videos.get(_get(row, "video_id", int, where))
    if video is None:
        raise InputError(f"{where}: there is no video {row['video_id']}")
    category_id = _get(row, "category_id", int, where)
    if category_id not in categories:
        raise InputError(f"{where}: there is no category {category_id}")
    segmentations = normalise_all(_get(row, "segmentations", list, where), video, where)
    return Track(_id(row, where), video.id, category_id, bool(row.get("iscrowd", 0)), segmentations)


def normalise_all(segmentations: list[Any], video: Video, where: str) -> tuple[Segmentation | None, ...]:
    """(length of the video) the masks of one object, None where it is not visible; `where` is for messages.

    Raises:
        InputError: there are more or fewer than the video has frames, or one is not a mask of the video's size.
    """
    if len(segmentations) != video.length:
        raise InputError(f"{where}: {len(segmentations)} segmentations, but video {video.id} has {video.length} frames")
    masks: list[Segmentation | None] = []
    for frame, segmentation in enumerate(segmentations):
        try:
            masks.append(None if segmentation is None else normalise(segmentation, video.height, video.width))
        except InputError as error:
            raise InputError(f"{where}, frame {frame}: {error}") from error
    return tuple(masks)


def _id(row: Mapping[str, Any], where: str) -> int:
    identity = _get(row, "id", int, where)
    if identity < 0:
        raise InputError(f"{where}: id {identity} is negative")
    return identity


def _get(row: Mapping[str, Any], key: str, kind: type[_Value], where: str) -> _Value:
    if key not in row:
        raise InputError(f"{where} has no {key!r}")
    value = row[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise InputError(f"{where}: {key} is not {_KINDS[kind]}, found {value!r:.60}")
    return value
