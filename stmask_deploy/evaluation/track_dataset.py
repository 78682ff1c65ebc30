"""Runs a model over the videos of a dataset."""
from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..datasets.annotations import Annotations
from ..datasets.frames import read_frame

if TYPE_CHECKING:
    from stmask_deploy.runtime.model import Model


def track_dataset(model: Model, annotations: Annotations, frames_folder: Path,
                  ) -> list[dict[str, Any]]:
    """The YouTube-VIS result list of a model for all videos; category ids are those of the annotation file.

    Args:
        model: opened bundle whose classes are the dataset's, in the order of their ids; it is reset before each video.
        annotations: the list of videos; their ground truth is not read.
        frames_folder: base folder of the videos' file names.

    Raises:
        InputError: a frame cannot be read.
    """
    from stmask_deploy.runtime.ytvis import YtvisCollector

    entries = []
    for video in annotations.videos:
        model.reset()
        collector = YtvisCollector(video.id)
        for index in range(video.length):
            collector.add(model.step(read_frame(frames_folder, video, index)))
        entries += collector.entries()
    return in_categories(entries, annotations)


def in_categories(entries: list[dict[str, Any]], annotations: Annotations) -> list[dict[str, Any]]:
    """The entries with their 1-based class positions replaced by the category ids of the annotation file."""
    ids = [category.id for category in annotations.categories]
    return [{**entry, "category_id": ids[entry["category_id"] - 1]} for entry in entries]
