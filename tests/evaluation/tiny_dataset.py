"""Datasets and results of rectangles, small enough to work out every number by hand."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stmask_deploy.datasets.annotations import Annotations, Category, Track, Video
from stmask_deploy.datasets.segmentation import Segmentation, encode

SIZE = (20, 40)  # height, width of every video unless said otherwise
Rectangle = tuple[int, int, int, int]  # y, x, height, width in pixels
CATEGORIES = (Category(3, "cat"), Category(8, "dog"))


def mask(rectangle: Rectangle | None, size: tuple[int, int] = SIZE) -> Segmentation | None:
    """The RLE of a filled rectangle."""
    if rectangle is None:
        return None
    y, x, height, width = rectangle
    pixels = np.zeros(size, np.bool_)
    pixels[y:y + height, x:x + width] = True
    return encode(pixels)


def masks(rectangles: Sequence[Rectangle | None], size: tuple[int, int] = SIZE) -> list[Segmentation | None]:
    """One a frame."""
    return [mask(rectangle, size) for rectangle in rectangles]


def dataset(*tracks: tuple[int, int, Sequence[Rectangle | None]], crowds: Sequence[int] = (), frames: int = 2,
            videos: Sequence[int] = (1,), size: tuple[int, int] = SIZE) -> Annotations:
    """Tracks are (video id, category id, rectangles); those at the positions `crowds` are crowds."""
    return Annotations(
        Path("tiny.json"), CATEGORIES,
        tuple(Video(one, *size, frames, tuple(f"video{one}/{frame}.png" for frame in range(frames))) for one in videos),
        tuple(Track(row + 1, video, category, row in crowds, tuple(masks(rectangles, size)))
              for row, (video, category, rectangles) in enumerate(tracks)))


def entry(video: int, category: int, score: float, rectangles: Sequence[Rectangle | None],
          size: tuple[int, int] = SIZE, **others: Any) -> dict[str, Any]:
    """One entry of a result list."""
    return {"video_id": video, "category_id": category, "score": score, "segmentations": masks(rectangles, size),
            **others}


def as_json(annotations: Annotations) -> dict[str, Any]:
    """The content of an annotation file."""
    return {"categories": [{"id": one.id, "name": one.name} for one in annotations.categories],
            "videos": [{"id": one.id, "height": one.height, "width": one.width, "length": one.length,
                        "file_names": list(one.file_names)} for one in annotations.videos],
            "annotations": [{"id": one.id, "video_id": one.video_id, "category_id": one.category_id,
                             "iscrowd": int(one.is_crowd), "segmentations": list(one.segmentations)}
                            for one in annotations.tracks]}
