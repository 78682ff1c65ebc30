"""Reads the images of a dataset's videos."""
from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..picture_file import read_picture
from .annotations import Annotations, Video

FRAMES_FOLDER = "JPEGImages"  # next to the annotation file, as in YouTube-VIS


def check_frames(annotations: Annotations, folder: Path, cure: str) -> None:
    """Check that every frame's file exists; `cure` says what to do where they do not.

    Raises:
        InputError: files are missing.
    """
    names = [name for video in annotations.videos for name in video.file_names]
    missing = [name for name in names if not os.path.isfile(folder / name)]
    if missing:
        raise InputError(f"{len(missing)} of the {len(names)} frames that {annotations.path} lists are not in {folder} "
                         f"(the first is {missing[0]}); {cure}")


def read_frame(folder: Path, video: Video, index: int) -> NDArray[np.uint8]:
    """(H, W, 3) BGR of frame `index` of a video.

    Raises:
        InputError: the file is not an image of the video's size, or is truncated.
    """
    path = folder / video.file_names[index]
    picture = read_picture(path)
    if picture is None:
        raise InputError(f"{path} cannot be read as a picture, or is cut off or has more than 134 million "
                         "pixels; put a whole picture in its place")
    if picture.shape[:2] != (video.height, video.width):
        raise InputError(f"{path} has {picture.shape[0]}x{picture.shape[1]} pixels, its annotations are for "
                         f"{video.height}x{video.width}")
    return picture
