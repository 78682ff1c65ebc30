"""Picture files: read whole or not at all; decoders pad truncated ones silently or report them on standard error."""
from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from .opencv_log import SILENCE

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xd9"
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")  # FF 00 and the restarts D0 to D7 are part of a scan
_PNG_START, _PNG_END = b"\x89PNG", b"IEND"
_PNG_CHECKSUM = 4  # bytes, after IEND
_GIF_START, _GIF_END = b"GIF8", b";"


def read_picture(path: Path) -> NDArray[np.uint8] | None:
    """(H, W, 3) uint8 BGR with the EXIF orientation applied, or None if the file is unreadable or truncated."""
    try:
        data = path.read_bytes()
        if not data or is_cut_off(data):
            return None
        with SILENCE:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error):
        return None
    return None if image is None else np.asarray(image, np.uint8)


def num_pictures(path: Path) -> int:
    """The number of pictures in a file: more than one in an animation, or a TIFF of several pages; 0 if unreadable."""
    try:
        name = str(path).encode().decode()  # OpenCV crashes on names that are not text
        with SILENCE:
            return int(cv2.imcount(name, cv2.IMREAD_COLOR))
    except (cv2.error, UnicodeEncodeError):
        return 0


def is_cut_off(data: bytes) -> bool:
    """True for a JPEG, PNG or GIF that is missing its end.

    OpenCV 4 pads such a JPEG with grey; libpng reports such a PNG on standard error.
    """
    if data.startswith(_JPEG_START):
        return not _has_jpeg_end(data)
    if data.startswith(_PNG_START):
        end = data.rfind(_PNG_END)
        return not 0 <= end <= len(data) - len(_PNG_END) - _PNG_CHECKSUM
    if data.startswith(_GIF_START):
        return not data.rstrip(b"\0 \r\n\t").endswith(_GIF_END)  # some programs append something blank
    return False


def _has_jpeg_end(data: bytes) -> bool:
    """Whether an end marker exists; a thumbnail's own marker lies in a header segment, which is skipped."""
    position = len(_JPEG_START)
    while marker := _MARKER.search(data, position):
        if marker[1] == _JPEG_END:
            return True
        position = marker.end() + int.from_bytes(data[marker.end():marker.end() + 2], "big")
    return False
