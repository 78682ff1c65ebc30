"""Frames of a camera attached to this machine."""
from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np

from stmask_deploy.errors import DeviceError

from .frame_source import Frame, FrameSource, Image

SILENT = 0  # OpenCV's log level


class CameraSource(FrameSource):
    """A camera, by number. `time_s` counts from the first frame; the source ends when the camera stops delivering.

    Raises:
        DeviceError: the camera does not open or delivers no picture.
    """

    kind = "camera"

    def __init__(self, number: int) -> None:
        super().__init__()
        self.name = f"camera {number}"
        self.num_frames = None
        self._capture = _open_quietly(number)
        self._first = self._read()
        if self._first is None:
            self.close()
            raise DeviceError(f"{self.name} gives no picture; check that it is connected, that no other program "
                              "uses it and that you may open it, or give another number")
        self.height, self.width = self._first.shape[:2]
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps <= 1000 else None

    def _read(self) -> Image | None:
        try:
            good, image = self._capture.read()
        except cv2.error:
            return None
        return np.asarray(image, np.uint8) if good and image is not None else None

    def _frames(self) -> Iterator[Frame]:
        image, self._first = self._first, None
        start = time.monotonic()
        index = 0
        while image is not None:
            self._check_size(image, f"frame {index} of {self.name}")
            yield Frame(index, time.monotonic() - start, image)
            index += 1
            image = self._read()
        self._count(packet_errors=1)

    def close(self) -> None:
        self._capture.release()


def _open_quietly(number: int) -> cv2.VideoCapture:
    """Open a camera without the several lines that OpenCV prints about a missing one; our error says it in one line."""
    logging = opencv_logging()
    level = logging.getLogLevel()
    logging.setLogLevel(SILENT)
    try:
        return cv2.VideoCapture(number)
    finally:
        logging.setLogLevel(level)


def opencv_logging() -> Any:
    """The module that holds `getLogLevel` and `setLogLevel`: OpenCV 5 moved them."""
    return cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging
