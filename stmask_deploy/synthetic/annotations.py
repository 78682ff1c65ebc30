"""Annotations in the format of YouTube-VIS 2019: what is in `instances.json`."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco

from stmask_deploy import __version__

from .outlines import CLASSES

DESCRIPTION = "Generated clips with the format of YouTube-VIS 2019"

Json = dict[str, Any]


@dataclass(frozen=True)
class Track:
    """One object through a clip; None in the frames where it is not seen. All three are of the clip's length."""

    class_id: int
    segmentations: list[Json | None]  # COCO's compressed RLE, {"size": [H, W], "counts": str}
    bboxes: list[list[float] | None]  # xywh in pixels
    areas: list[int | None]  # pixels

    def add(self, mask: NDArray[np.bool_]) -> None:
        """The next frame, (H, W)."""
        if not mask.any():
            for values in (self.segmentations, self.bboxes, self.areas):
                values.append(None)
            return
        rle = coco.encode(np.asfortranarray(mask, np.uint8))
        self.bboxes.append(coco.toBbox(rle).tolist())
        self.areas.append(int(coco.area(rle)))
        self.segmentations.append({"size": list(mask.shape), "counts": rle["counts"].decode("ascii")})


@dataclass(frozen=True)
class VideoAnnotation:
    """What `instances.json` says about one clip."""

    height: int
    width: int
    file_names: list[str]  # relative to JPEGImages
    tracks: list[Track]


def split_json(split: str, videos: list[VideoAnnotation]) -> Json:
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
                         "segmentations": track.segmentations, "bboxes": track.bboxes, "areas": track.areas}
                        for number, (video_id, video, track) in enumerate(tracks, start=1)],
    }
