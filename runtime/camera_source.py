"""Frames of a camera attached to this machine."""
from __future__ import annotations

import time
from collections.abc import Iterator

import cv2
import numpy as np

from stmask_deploy.errors import DeviceError
from stmask_deploy.opencv_log import SILENCE

from .frame_source import Frame, FrameSource, Image


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
        with SILENCE:  # several lines about a camera that is not there; the error below says it in one
            self._capture = cv2.VideoCapture(number)
        self._first = self._read()
        self._start = time.monotonic()  # much may happen before frames are asked for
        if self._first is None:
            self.close()
            raise DeviceError(f"{self.name} gives no picture; check that it is connected, that no other program "
                              "uses it and that you have permission to open it, or give another number")
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
        index, time_s = 0, 0.0
        while image is not None:
            self._check_size(image, f"frame {index} of {self.name}")
            yield Frame(index, time_s, image)
            index += 1
            image = self._read()
            time_s = time.monotonic() - self._start
        self._count(packet_errors=1)

    def close(self) -> None:
        self._capture.release()
