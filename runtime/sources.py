"""`open_source`: from a path, address or camera number to a frame source."""
from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from stmask_deploy.errors import InputError
from stmask_deploy.wording import shown

from .camera_source import CameraSource
from .frame_source import FrameSource
from .image_source import IMAGE_SUFFIXES, ImageSource, list_images
from .stream_address import holds_address, is_address, public_address
from .stream_source import StreamSource
from .video_source import VideoSource

MIN_IMAGE_FPS, MAX_IMAGE_FPS = 0.001, 1000.0
MAX_DIGITS = 100  # more are no number of anything; Python refuses to read one of thousands
MAX_CAMERA = 99  # OpenCV interprets the hundreds of a camera number as the capture backend

_GIVE = "give a video, an image, a folder of images, a camera number or the address of a stream"


def open_source(source: str | int | Path, *, image_fps: float = 30.0,
                is_stopped: Callable[[], bool] | None = None) -> FrameSource:
    """Open a video file, a folder of images, a single image, a camera or a network stream.

    Args:
        source: a path, a camera number (an int, or a string of digits that is not an existing path), or an address
            such as "rtsp://camera/stream".
        image_fps: frame rate assigned to the images of a folder, from 0.001 to 1000.
        is_stopped: ends the wait for a network stream's first picture, with an InputError, once it returns True.

    Returns:
        The source, with its first frame already read, so that its size is known.

    Raises:
        InputError: there is no such source, or nothing in it can be read.
        DeviceError: the camera does not open.
    """
    rate = to_float(image_fps)
    if not MIN_IMAGE_FPS <= rate <= MAX_IMAGE_FPS:
        raise InputError(f"image_fps must be a number from {MIN_IMAGE_FPS} to {MAX_IMAGE_FPS:.0f}, got "
                         f"{shown(image_fps)}")
    if isinstance(source, np.ndarray):
        raise InputError(f"an array is no source; {_GIVE}. Model.step takes single pictures")
    if source == "":  # as a path it would be the working directory
        raise InputError(f"the source has no name; {_GIVE}")
    if isinstance(source, (int, np.integer)):
        return _open_camera(int(source))
    if is_camera(source):
        return _open_camera(int(str(source)))
    if is_address(source):
        return StreamSource(str(source), is_stopped)
    try:
        path = Path(source)
    except TypeError as error:
        raise InputError(f"{shown(source)} is no source; {_GIVE}") from error
    if os.path.isdir(path):
        return ImageSource(list_images(path), "folder", name_of_folder(path) or str(path), rate)
    if not os.path.exists(path):
        if isinstance(source, str) and holds_address(source):
            raise InputError(f"{public_address(source)} is neither a file nor an address; remove what stands before "
                             "the address")
        raise InputError(_missing(path, may_be_live=isinstance(source, str)))
    if not os.path.isfile(path):
        raise InputError(f"{path} is neither a file nor a folder; {_GIVE}")
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return ImageSource([path], "image", path.name, None)
    return VideoSource(path)


def to_float(value: object) -> float:
    """A number of any type, such as NumPy's or a fraction, as Python's float; NaN if it is none."""
    if isinstance(value, (str, bytes, bytearray)):
        return math.nan
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan


def name_of_folder(path: Path) -> str:
    """The last part of a folder's path: of a link its own name, of "." and ".." that of the folder meant; of "/" ""."""
    try:
        return (path.resolve() if path.name in ("", "..") else path).name
    except OSError:  # the working directory has been deleted
        return ""


def files_of(source: str) -> tuple[Path, ...]:
    """The files that `open_source` would read for a source; none for a live one or a folder without usable images."""
    path = Path(source)
    if os.path.isdir(path):
        try:
            return tuple(list_images(path))
        except InputError:
            return ()
    return () if is_live(source) else (path,)


def is_live(source: str) -> bool:
    """Whether `source` is a camera number or an address, so that it never ends."""
    return is_camera(source) or is_address(source)


def shown_name(source: str) -> str:
    """`source` for messages: an address without its password."""
    return public_address(source) if holds_address(source) else source


def is_camera(source: str | Path) -> bool:
    """Whether `source` is a camera number: a string of digits that is not the name of a file or folder."""
    return (isinstance(source, str) and source.isdecimal() and len(source) <= MAX_DIGITS
            and not os.path.exists(source))


def _open_camera(number: int) -> CameraSource:
    if not 0 <= number <= MAX_CAMERA:
        raise InputError(f"camera numbers are 0 to {MAX_CAMERA}, got {number}; there is no file or folder of that name")
    return CameraSource(number)


def _missing(path: Path, may_be_live: bool) -> str:
    if any(sign in str(path) for sign in "*?["):
        return f"{path}: file patterns are not supported; give the folder that holds the images"
    try:
        os.stat(path)
    except PermissionError:
        return f"{path} may not be read; check its permissions"
    except (OSError, ValueError):  # ValueError: a name with a null character
        pass
    return f"{path} does not exist; check the name{' (a camera is given by its number)' if may_be_live else ''}"
