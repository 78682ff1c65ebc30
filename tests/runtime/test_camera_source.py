from __future__ import annotations

import threading
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
from media import picture

from stmask_deploy.errors import DeviceError, InputError
from stmask_deploy.opencv_log import SILENCE, opencv_logging
from stmask_deploy.runtime.camera_source import CameraSource
from stmask_deploy.runtime.frame_source import Damage, Frame


class FakeCapture:
    """A camera that gives some pictures, each once the one before has been looked at, and then breaks off."""

    images: list[np.ndarray | None] = []
    released = 0
    turns = threading.Semaphore()

    def __init__(self, number: int) -> None:
        self._left = list(self.images)

    def read(self) -> tuple[bool, np.ndarray | None]:
        assert self.turns.acquire(timeout=10)
        image = self._left.pop(0) if self._left else None
        return image is not None, image

    def get(self, prop: int) -> float:
        return 25.0 if prop == cv2.CAP_PROP_FPS else 0.0

    def release(self) -> None:
        type(self).released += 1


def each(source: CameraSource) -> Iterator[Frame]:
    for frame in source:
        yield frame
        FakeCapture.turns.release()


@pytest.fixture
def camera(monkeypatch: pytest.MonkeyPatch) -> type[FakeCapture]:
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    monkeypatch.setattr(FakeCapture, "released", 0)
    monkeypatch.setattr(FakeCapture, "turns", threading.Semaphore(1))
    return FakeCapture


def test_frames_until_the_camera_stops(camera: type[FakeCapture], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "images", [picture(index) for index in range(3)])
    with CameraSource(2) as source:
        frames = list(each(source))
    assert (source.kind, source.name, source.is_live) == ("camera", "camera 2", True)
    assert (source.width, source.height, source.fps, source.num_frames) == (64, 48, 25.0, None)
    assert [frame.index for frame in frames] == [0, 1, 2]
    assert [frame.image.tolist() for frame in frames] == [picture(index).tolist() for index in range(3)]
    assert frames[0].time_s < 0.5
    assert sorted(frame.time_s for frame in frames) == [frame.time_s for frame in frames]
    assert source.damage == Damage(frames=3, packet_errors=1)  # it went away, nobody stopped it
    assert camera.released == 1


@pytest.mark.parametrize(("told", "fps"), [(1000.0, 1000.0), (1000000.0, None), (0.5, 0.5), (0.0, None), (-1.0, None)])
def test_a_rate_that_no_camera_has_is_none(camera: type[FakeCapture], monkeypatch: pytest.MonkeyPatch, told: float,
                                           fps: float | None) -> None:
    monkeypatch.setattr(camera, "images", [picture()])
    monkeypatch.setattr(camera, "get", lambda _self, _property: told)
    with CameraSource(0) as source:
        assert source.fps == fps


def test_stopping_it_is_no_damage(camera: type[FakeCapture], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "images", [picture()] * 9)
    with CameraSource(0) as source:
        for frame in each(source):
            if frame.index == 3:
                camera.turns.release()
                break
    assert not source.damage.is_damaged
    assert camera.released == 1


def test_no_picture(camera: type[FakeCapture]) -> None:
    with pytest.raises(DeviceError, match="camera 0 gives no picture"):
        CameraSource(0)
    assert camera.released == 1


def test_a_change_of_size(camera: type[FakeCapture], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera, "images", [picture(), picture(size=(10, 10))])
    with CameraSource(0) as source, pytest.raises(InputError, match="frame 1 of camera 0 is 10x10"):
        list(each(source))


def test_a_missing_camera_in_one_line(capfd: pytest.CaptureFixture[str]) -> None:
    before = opencv_logging().getLogLevel()
    with pytest.raises(DeviceError, match="camera 97 gives no picture"):
        CameraSource(97)
    assert capfd.readouterr() == ("", "")
    assert opencv_logging().getLogLevel() == before


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
