"""The entries of a YouTube-VIS result list, checked against the videos and classes of a dataset."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..datasets.annotations import Annotations, normalise_frames
from ..datasets.record import Record
from ..datasets.segmentation import Segmentation


@dataclass(frozen=True)
class Prediction:
    """One object found in a video."""

    video_id: int
    category_id: int
    score: float
    identity: int  # equal for entries of the same object; negative if the list does not say
    segmentations: tuple[Segmentation | None, ...]  # (length of the video)


def check_entries(entries: Sequence[Mapping[str, Any]], annotations: Annotations, where: str = "results"
                  ) -> tuple[Prediction, ...]:
    """Check the entries and convert their masks to RLE, keeping the order.

    Args:
        entries: `video_id`, `category_id` as in the annotation file, `score`, `segmentations` (RLE, polygons or None
            for every frame), and optionally `instance_id`, without which every entry has its own identity.
        annotations: the dataset the ids refer to.
        where: the file, for messages.

    Raises:
        InputError: a value is missing, has the wrong type or does not belong to the dataset. The message names the
            entry.
    """
    videos = {video.id: video for video in annotations.videos}
    category_ids = {category.id for category in annotations.categories}
    predictions = []
    for row, entry in enumerate(entries):
        record = Record(dict(entry) if isinstance(entry, Mapping) else entry, f"{where}: [{row}]")
        video_id, category_id = record.whole_number("video_id"), record.whole_number("category_id")
        if video_id not in videos:
            raise record.error(f"video_id {video_id} is not among the videos of {annotations.path}")
        if category_id not in category_ids:
            raise record.error(f"category_id {category_id} is not among the categories of {annotations.path}")
        identity = -1 - row if record.get("instance_id") is None else record.whole_number("instance_id")
        masks = normalise_frames(record.array("segmentations"), record, videos[video_id])
        predictions.append(Prediction(video_id, category_id, record.number("score"), identity, masks))
    return tuple(predictions)
