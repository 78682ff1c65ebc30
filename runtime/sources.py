"""`open_source`: from what a user names to frames."""
from __future__ import annotations

import math
import re
from pathlib import Path

from stmask_deploy.errors import InputError

from .camera_source import CameraSource
from .frame_source import Damage, Frame, FrameSource
from .image_source import IMAGE_SUFFIXES, ImageSource, list_images
from .video_source import VideoSource

MAX_CAMERA = 99  # OpenCV reads the hundreds of a number as the library that opens the camera

__all__ = ["Damage", "Frame", "FrameSource", "open_source"]


def open_source(source: str | int | Path, *, image_fps: float = 30.0) -> FrameSource:
    """Open a video file, a folder of images, a single image or a camera.

    Args:
        source: a path, or a camera number (an int, or a string of digits that is no path).
        image_fps: frames a second that the images of a folder stand for.

    Returns:
        The source, with its first frame read already: size and kind are known.

    Raises:
        InputError: there is no such source, or nothing in it can be read.
        DeviceError: the camera does not open.
    """
    if not (math.isfinite(image_fps) and image_fps > 0):
        raise InputError(f"image_fps must be a positive number, got {image_fps}")
    if isinstance(source, int) or is_camera(source):
        return _open_camera(int(str(source)))
    path = Path(source)
    if isinstance(source, str) and re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", source):
        raise InputError(f"{source} is an address; network streams are not supported: download the video and give "
                         "the file")
    if path.is_dir():
        return ImageSource(list_images(path), "folder", path.resolve().name or str(path), image_fps)
    if not path.exists():
        raise InputError(_missing(path))
    if not path.is_file():
        raise InputError(f"{path} is neither a file nor a folder; give a video, an image, a folder of images or a "
                         "camera number")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageSource([path], "image", path.name, None)
    return VideoSource(path)


def files_of(source: str) -> tuple[Path, ...]:
    """What would be read of a source, as `open_source` takes it; none of a camera, nor of what cannot be opened."""
    path = Path(source)
    if path.is_dir():
        try:
            return tuple(list_images(path))
        except InputError:
            return ()
    return () if is_camera(source) else (path,)


def is_camera(source: str | Path) -> bool:
    """Whether it is the number of a camera: digits, and no file or folder has that name."""
    return isinstance(source, str) and source.isdecimal() and not Path(source).exists()


def _open_camera(number: int) -> CameraSource:
    if not 0 <= number <= MAX_CAMERA:
        raise InputError(f"camera numbers are 0 to {MAX_CAMERA}, got {number}; there is no file or folder of that name")
    return CameraSource(number)


def _missing(path: Path) -> str:
    if any(sign in str(path) for sign in "*?["):
        return f"{path}: file patterns are not supported; give the folder that holds the images"
    return f"{path} does not exist; check the name (a camera is given by its number)"
