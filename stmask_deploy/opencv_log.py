"""OpenCV's log level, which is one for the whole process."""
from __future__ import annotations

import threading
from typing import Any

import cv2

SILENT = 0


class _Silence:
    """Context manager in which OpenCV prints nothing. Several threads may be inside; the last restores the level."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._num_inside = 0
        self._level = SILENT

    def __enter__(self) -> None:
        with self._lock:
            if not self._num_inside:
                self._level = opencv_logging().getLogLevel()
                opencv_logging().setLogLevel(SILENT)
            self._num_inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._num_inside -= 1
            if not self._num_inside:
                opencv_logging().setLogLevel(self._level)


SILENCE = _Silence()  # everybody's: two of them would restore each other's level


def opencv_logging() -> Any:
    """The namespace of `getLogLevel` and `setLogLevel`: OpenCV 5 moved them."""
    return cv2 if hasattr(cv2, "setLogLevel") else cv2.utils.logging
