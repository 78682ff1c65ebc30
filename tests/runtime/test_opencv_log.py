"""OpenCV prints nothing of its own, and what it printed before it prints afterwards."""
from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import pytest
from media import picture, write_image

from stmask_deploy.runtime.camera_source import CameraSource
from stmask_deploy.runtime.image_source import read_image
from stmask_deploy.runtime.opencv_log import SILENCE, SILENT, opencv_logging


def test_the_level_comes_back_behind_the_last_one() -> None:
    level = opencv_logging().getLogLevel()
    assert level != SILENT
    with pytest.raises(KeyError), SILENCE:
        with SILENCE:
            assert opencv_logging().getLogLevel() == SILENT
        assert opencv_logging().getLogLevel() == SILENT
        raise KeyError
    assert opencv_logging().getLogLevel() == level


def test_threads_that_read_leave_the_log_level_as_it_was(tmp_path: Path) -> None:
    level = opencv_logging().getLogLevel()
    paths = [write_image(tmp_path / f"{number}.png") for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert all(image is not None for image in pool.map(read_image, paths * 50))
    assert opencv_logging().getLogLevel() == level


def test_a_camera_that_opens_while_a_picture_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    level = opencv_logging().getLogLevel()

    class Camera:
        def __init__(self, number: int) -> None:
            reading.__exit__()  # the picture is read before the camera is open

        def read(self) -> tuple[bool, object]:
            return True, picture()

        def get(self, prop: int) -> float:
            return 0.0

        def release(self) -> None:
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Camera)
    reading = SILENCE
    reading.__enter__()
    with CameraSource(0):
        assert opencv_logging().getLogLevel() == level
