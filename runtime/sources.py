"""`open_source`: from what a user names to frames."""
from __future__ import annotations

import math
import os
import re
from pathlib import Path

from stmask_deploy.errors import InputError

from .camera_source import CameraSource
from .frame_source import Damage, Frame, FrameSource
from .image_source import IMAGE_SUFFIXES, ImageSource, list_images
from .video_source import VideoSource

MAX_IMAGE_FPS = 1000.0
MAX_CAMERA = 99  # OpenCV reads the hundreds of a number as the library that opens the camera

_GIVE = "give a video, an image, a folder of images or a camera number"

__all__ = ["Damage", "Frame", "FrameSource", "open_source"]


def open_source(source: str | int | Path, *, image_fps: float = 30.0) -> FrameSource:
    """Open a video file, a folder of images, a single image or a camera.

    Args:
        source: a path, or a camera number (an int, or a string of digits that is no path).
        image_fps: frames a second that the images of a folder stand for; above 0, at most 1000.

    Returns:
        The source, with its first frame read already: size and kind are known.

    Raises:
        InputError: there is no such source, or nothing in it can be read.
        DeviceError: the camera does not open.
    """
    if not (math.isfinite(image_fps) and 0 < image_fps <= MAX_IMAGE_FPS):
        raise InputError(f"image_fps must be a positive number of at most {MAX_IMAGE_FPS:.0f}, got {image_fps}")
    if source == "":  # as a path it would be the folder one is in
        raise InputError(f"the source has no name; {_GIVE}")
    if isinstance(source, int) or is_camera(source):
        return _open_camera(source if isinstance(source, int) else int(str(source)))
    path = Path(source)
    if isinstance(source, str) and re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", source):
        raise InputError(f"{source} is an address; network streams are not supported: download the video and give "
                         "the file")
    if os.path.isdir(path):
        return ImageSource(list_images(path), "folder", path.resolve().name or str(path), image_fps)
    if not os.path.exists(path):
        raise InputError(_missing(path))
    if not os.path.isfile(path):
        raise InputError(f"{path} is neither a file nor a folder; {_GIVE}")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageSource([path], "image", path.name, None)
    return VideoSource(path)


def files_of(source: str) -> tuple[Path, ...]:
    """What would be read of a source, as `open_source` takes it; none of a camera, nor of what cannot be opened."""
    path = Path(source)
    if os.path.isdir(path):
        try:
            return tuple(list_images(path))
        except InputError:
            return ()
    return () if is_camera(source) else (path,)


def is_camera(source: str | Path) -> bool:
    """Whether it is the number of a camera: digits, and no file or folder has that name."""
    return isinstance(source, str) and source.isdecimal() and not os.path.exists(source)


def _open_camera(number: int) -> CameraSource:
    if not 0 <= number <= MAX_CAMERA:
        raise InputError(f"camera numbers are 0 to {MAX_CAMERA}, got {number}; there is no file or folder of that name")
    return CameraSource(number)


def _missing(path: Path) -> str:
    if any(sign in str(path) for sign in "*?["):
        return f"{path}: file patterns are not supported; give the folder that holds the images"
    try:
        os.stat(path)
    except PermissionError:
        return f"{path} may not be read; check its permissions"
    except OSError:
        pass
    return f"{path} does not exist; check the name (a camera is given by its number)"
