"""What a run learns from, or is evaluated on."""
from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..classes import plain_name
from ..datasets.annotations import Annotations, read_annotations
from ..datasets.frames import FRAMES_FOLDER, check_frames, read_frame
from ..errors import InputError


@dataclass(frozen=True)
class Data:
    """An annotation file and its frames."""

    annotations: Annotations
    frames: Path

    @classmethod
    def open(cls, annotations: Path, frames: Path | None) -> Data:
        """Read and check a dataset; `frames` None means the folder JPEGImages next to the file.

        Raises:
            InputError: the file is not an annotation file with annotated objects, or frames are missing.
        """
        read = read_annotations(annotations)
        objects = [track for track in read.tracks if not track.is_crowd]
        if not any(mask is not None for track in objects for mask in track.segmentations):
            raise InputError(f"{annotations} lists videos but no annotated objects, or crowds (iscrowd) alone; "
                             "training and validation need objects")
        folder = annotations.parent / FRAMES_FOLDER if frames is None else frames
        check_frames(read, folder, "give the folder of the frames with --frames (for --val: --val-frames)")
        return cls(read, folder)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Class names in the order of the category ids, which is the order of the network's classes."""
        return tuple(category.name for category in self.annotations.categories)

    @cached_property
    def fingerprint(self) -> str:
        """Identifies a dataset: SHA-256 of ids, names and sizes of frames, masks and crowd flags."""
        videos = [(video.id, video.height, video.width, video.file_names) for video in self.annotations.videos]
        tracks = [(track.id, track.video_id, track.category_id, track.is_crowd, track.segmentations)
                  for track in self.annotations.tracks]
        return hashlib.sha256(json.dumps([videos, tracks]).encode()).hexdigest()

    def check_classes(self, other: Data) -> None:
        """Check that a network with the classes of `other` can be evaluated on this dataset.

        Raises:
            InputError: the classes are not the same.
        """
        if list(map(plain_name, self.class_names)) != list(map(plain_name, other.class_names)):
            raise InputError(f"the classes of {self.annotations.path} ({', '.join(self.class_names[:5])}) are not "
                             f"those of {other.annotations.path} ({', '.join(other.class_names[:5])})")

    def read_all(self) -> None:
        """Read every frame once, so that an unreadable one is reported now and not after hours of training.

        Raises:
            InputError: a frame cannot be read.
        """
        for video in self.annotations.videos:
            for index in range(video.length):
                read_frame(self.frames, video, index)
