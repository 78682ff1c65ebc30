"""Annotations in YouTube-VIS format: categories, videos, and one mask per frame for each object."""
from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from ..errors import InputError
from .record import Record, read_json
from .segmentation import Segmentation, normalise

MAX_SIDE = 32768  # pixels; a larger video size is treated as an error


@dataclass(frozen=True)
class Category:
    """A class of objects, with its id in the file."""

    id: int
    name: str


@dataclass(frozen=True)
class Video:
    """A video as a list of image files."""

    id: int
    height: int  # pixels
    width: int
    length: int  # frames
    file_names: tuple[str, ...]  # (length) relative to the dataset's image folder

    @property
    def name(self) -> str:
        """Name of the folder that holds its images, or the video's id if there is none."""
        return PurePosixPath(self.file_names[0]).parent.name or str(self.id)


@dataclass(frozen=True)
class Track:
    """One object through a video."""

    id: int
    video_id: int
    category_id: int
    is_crowd: bool  # a group of objects, or a region excluded from scoring
    segmentations: tuple[Segmentation | None, ...]  # one per frame of the video, None where it is not visible


@dataclass(frozen=True)
class Annotations:
    """The contents of an annotation file."""

    path: Path
    categories: tuple[Category, ...]  # in the order of their ids: a model's class i + 1 is categories[i]
    videos: tuple[Video, ...]
    tracks: tuple[Track, ...]

    @property
    def has_tracks(self) -> bool:
        """Whether there are tracks to learn from or compare with; a test split may list only videos."""
        return bool(self.tracks)

    def tracks_of(self, video_id: int) -> tuple[Track, ...]:
        """The objects of one video, in the order of the file."""
        return self._tracks_by_video.get(video_id, ())

    @cached_property
    def _tracks_by_video(self) -> dict[int, tuple[Track, ...]]:
        grouped: dict[int, list[Track]] = {}
        for track in self.tracks:
            grouped.setdefault(track.video_id, []).append(track)
        return {video_id: tuple(tracks) for video_id, tracks in grouped.items()}


def read_annotations(path: str | Path) -> Annotations:
    """Read an annotation file of YouTube-VIS 2019, 2021 or OVIS, or one in the same format.

    Masks may be RLE or polygons and become compressed RLE. `areas` and `bboxes` are not read; the masks imply both.

    Raises:
        InputError: the file cannot be read; or an entry is missing, of the wrong type or size, or has an unknown or
            duplicate id. The message names the entry.
    """
    path = Path(path)
    root = Record(read_json(path), str(path))
    categories = [_category(record) for record in root.records("categories")]
    videos = [_video(record) for record in root.records("videos")]
    for kind, found in (("categories", categories), ("videos", videos)):
        if not found:
            raise root.error(f"{kind!r} is empty")
        _check_unique(root, kind, (one.id for one in found))
    _check_unique(root, "categories", (category.name for category in categories))
    videos_by_id = {video.id: video for video in videos}
    category_ids = {category.id for category in categories}
    # Splits with withheld annotations have null here, or no key at all.
    entries = root.records("annotations") if root.get("annotations") is not None else []
    tracks = [_track(record, videos_by_id, category_ids) for record in entries]
    _check_unique(root, "annotations", (track.id for track in tracks))
    return Annotations(path, tuple(sorted(categories, key=lambda category: category.id)), tuple(videos), tuple(tracks))


def normalise_frames(segmentations: Iterable[object], record: Record, video: Video) -> tuple[Segmentation | None, ...]:
    """One RLE or None per frame of `video`, from the `segmentations` of a JSON object.

    Raises:
        InputError: their number is not the video's length, or one of them is damaged or of another size.
    """
    given = tuple(segmentations)
    if len(given) != video.length:
        raise record.error(f"expected {video.length} segmentations, one for each frame of video {video.id} "
                           f"({video.name}), found {len(given)}")
    frames = []
    for index, segmentation in enumerate(given):
        try:
            frames.append(None if segmentation is None else normalise(segmentation, video.height, video.width))
        except InputError as error:
            raise record.error(f"segmentations[{index}]: {error}") from error
    return tuple(frames)


def _category(record: Record) -> Category:
    return Category(record.whole_number("id", minimum=0), record.text("name"))


def _video(record: Record) -> Video:
    names = record.array("file_names")
    if not names or not all(isinstance(name, str) and name for name in names):
        raise record.error("expected 'file_names' to be a list of file names, one a frame")
    length = record.whole_number("length", minimum=1, default=len(names))
    if length != len(names):
        raise record.error(f"'length' is {length}, but there are {len(names)} file names")
    height, width = (record.whole_number(key, minimum=1) for key in ("height", "width"))
    if max(height, width) > MAX_SIDE:
        raise record.error(f"a size of {height}x{width} pixels is too large for a picture")
    return Video(record.whole_number("id"), height, width, length, tuple(names))


def _track(record: Record, videos: dict[int, Video], category_ids: set[int]) -> Track:
    video_id, category_id = record.whole_number("video_id"), record.whole_number("category_id")
    if video_id not in videos:
        raise record.error(f"video_id {video_id} is not among the videos of the file")
    if category_id not in category_ids:
        raise record.error(f"category_id {category_id} is not among the categories of the file")
    is_crowd = record.whole_number("iscrowd", default=0)
    if is_crowd > 1:
        raise record.error(f"expected 'iscrowd' to be 0 or 1, found {is_crowd}")
    frames = normalise_frames(record.array("segmentations"), record, videos[video_id])
    return Track(record.whole_number("id"), video_id, category_id, bool(is_crowd), frames)


def _check_unique(root: Record, kind: str, values: Iterable[int | str]) -> None:
    seen: set[int | str] = set()
    for row, value in enumerate(values):
        if value in seen:
            raise root.error(f"{kind}[{row}]: {value!r} is also that of an earlier entry")
        seen.add(value)
