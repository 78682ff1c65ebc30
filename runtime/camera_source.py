"""Frames of a camera attached to this machine."""
from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from stmask_deploy.errors import DeviceError
from stmask_deploy.opencv_log import SILENCE

from .frame_source import Image
from .live_source import LiveSource
from .video_stream import MAX_FPS


class CameraSource(LiveSource):
    """A camera, by number. The source ends when the camera stops delivering.

    Raises:
        DeviceError: the camera does not open or delivers no picture.
    """

    kind = "camera"

    def __init__(self, number: int) -> None:
        super().__init__(f"camera {number}")
        with SILENCE:  # several lines about a camera that is not there; the error below says it in one
            self._capture = cv2.VideoCapture(number)
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps <= MAX_FPS else None
        self._start()

    def _pictures(self) -> Iterator[Image]:
        image = self._picture()
        if image is None:
            raise DeviceError(f"{self.name} gives no picture; check that it is connected, that no other program "
                              "uses it and that you have permission to open it, or give another number")
        while image is not None:
            yield image
            image = self._picture()
        self._note(packet_errors=1)

    def _picture(self) -> Image | None:
        try:
            good, image = self._capture.read()
        except cv2.error:
            return None
        return np.asarray(image, np.uint8) if good and image is not None else None

    def _disconnect(self) -> None:
        self._capture.release()
