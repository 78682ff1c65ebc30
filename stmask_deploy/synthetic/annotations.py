"""Annotations in YouTube-VIS 2019 format: the content of `instances.json`."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from stmask_deploy import __version__
from stmask_deploy.datasets.segmentation import Segmentation, encode

from .outlines import CLASSES

DESCRIPTION = "Generated clips with the format of YouTube-VIS 2019"


@dataclass(frozen=True)
class View:
    """The visible part of an object in one frame."""

    segmentation: Segmentation
    bbox: list[float]  # xywh in pixels
    area: int  # pixels


@dataclass(frozen=True)
class Track:
    """An object through a clip."""

    class_id: int  # 1-based
    views: list[View | None]  # one per frame, None where it is not visible


@dataclass(frozen=True)
class VideoAnnotation:
    """The entries of `instances.json` for one clip."""

    height: int
    width: int
    file_names: list[str]  # relative to JPEGImages
    tracks: list[Track]


def view_of(mask: NDArray[np.bool_]) -> View | None:
    """The view for an (H, W) mask; None if the mask is empty."""
    if not mask.any():
        return None
    segmentation = encode(mask)
    return View(segmentation, coco.toBbox(segmentation).tolist(), int(mask.sum()))


def split_json(split: str, videos: list[VideoAnnotation]) -> dict[str, Any]:
    """The content of `instances.json`: videos and annotations are numbered from 1 in the order given."""
    tracks = [(number, video, track) for number, video in enumerate(videos, start=1) for track in video.tracks]
    return {
        "info": {"description": DESCRIPTION, "version": __version__, "split": split},
        "licenses": [],
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES, start=1)],
        "videos": [{"id": number, "width": video.width, "height": video.height, "length": len(video.file_names),
                    "file_names": video.file_names} for number, video in enumerate(videos, start=1)],
        "annotations": [{"id": number, "video_id": video_id, "category_id": track.class_id, "iscrowd": 0,
                         "width": video.width, "height": video.height, "length": len(video.file_names),
                         "segmentations": [view and view.segmentation for view in track.views],
                         "bboxes": [view and view.bbox for view in track.views],
                         "areas": [view and view.area for view in track.views]}
                        for number, (video_id, video, track) in enumerate(tracks, start=1)],
    }
