from __future__ import annotations

import os
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_servers import MjpegServer, paced
from media import pictures, write_image, write_video

from stmask_deploy.errors import DeviceError, InputError
from stmask_deploy.runtime import sources
from stmask_deploy.runtime.sources import files_of, is_camera, is_live, name_of_folder, open_source, shown_name


@pytest.mark.parametrize("as_type", [str, Path])
def test_the_kind_follows_from_the_path(tmp_path: Path, as_type: type) -> None:
    write_image(tmp_path / "p.JPG".lower())
    write_video(tmp_path / "v.mp4", pictures(3))
    for name, kind, fps, shown in [("p.jpg", "image", None, "p.jpg"), ("v.mp4", "video", 30.0, "v.mp4"),
                                   (".", "folder", 12.5, tmp_path.name)]:
        with open_source(as_type(tmp_path / name), image_fps=12.5) as source:
            assert (source.kind, source.fps, source.name) == (kind, fps, shown)
            assert source.damage.frames == 0
            assert len(list(source)) == source.num_frames


def test_the_working_directory_has_the_name_of_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "street").mkdir()
    write_image(tmp_path / "street" / "1.png")
    monkeypatch.chdir(tmp_path / "street")
    with open_source(".") as source:
        assert source.name == "street"


def test_a_link_to_a_folder_has_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "videos" / "a" / "frames").mkdir(parents=True)
    write_image(tmp_path / "videos" / "a" / "frames" / "1.png")
    (tmp_path / "first").symlink_to(tmp_path / "videos" / "a" / "frames")
    for given, name in ((tmp_path / "first", "first"), (f"{tmp_path}/first/", "first"),
                        (tmp_path / "first" / "..", "a"), (tmp_path / "videos" / "a" / "frames" / ".", "frames")):
        if name != "a":
            with open_source(given) as source:
                assert source.name == name
        assert name_of_folder(Path(given)) == name
    assert name_of_folder(Path("/")) == ""


def test_a_working_directory_that_is_gone_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert name_of_folder(Path()) == ""


def test_a_single_image_is_one_frame_at_zero(tmp_path: Path) -> None:
    with open_source(write_image(tmp_path / "p.png")) as source:
        assert [(frame.index, frame.time_s) for frame in source] == [(0, 0.0)]


@pytest.mark.parametrize("camera", [97, "97"])
def test_a_number_is_a_camera(camera: int | str) -> None:
    with pytest.raises(DeviceError, match="camera 97"):
        open_source(camera)


@pytest.mark.parametrize("number", [0, 99])
def test_the_first_and_the_last_camera(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(sources, "CameraSource", opened.append)
    open_source(number)
    open_source(str(number))
    assert opened == [number, number]


@pytest.mark.parametrize("image_fps", [np.float32(12.5), Fraction(25, 2)])
def test_a_rate_may_be_any_number(tmp_path: Path, image_fps: Any) -> None:
    write_image(tmp_path / "1.png")
    with open_source(tmp_path, image_fps=image_fps) as source:
        assert type(source.fps) is float and source.fps == 12.5


@pytest.mark.parametrize("source", [b"x", None, 1.5])
def test_what_cannot_be_a_path(source: Any) -> None:
    with pytest.raises(InputError, match="is no source; give a video"):
        open_source(source)


def test_a_picture_is_no_source() -> None:
    with pytest.raises(InputError, match="an array is no source; give a video.* Model.step takes single pictures$"):
        open_source(np.zeros((4, 4, 3), np.uint8))  # type: ignore[arg-type]


def test_a_file_that_is_asked_for_is_no_camera() -> None:
    with pytest.raises(InputError, match="^0 does not exist; check the name$"):
        open_source(Path("0"))
    with pytest.raises(InputError, match="name .a camera is given by its number.$"):
        open_source("front")


def test_a_name_with_a_null_character_does_not_exist() -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_source("a\0b")


def test_thousands_of_digits_are_no_number() -> None:
    with pytest.raises(InputError, match="does not exist; check the name"):
        open_source("1" * 5000)
    with pytest.raises(InputError, match="camera numbers are 0 to 99"):
        open_source("1" * 50)


def test_a_path_of_digits_comes_before_a_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "97").mkdir()
    write_image(tmp_path / "97" / "1.png")
    monkeypatch.chdir(tmp_path)
    assert open_source("./97").kind == open_source("97").kind == "folder"
    assert not is_camera("97") and is_camera("96") and not is_camera(Path("96"))
    with pytest.raises(DeviceError):
        open_source(97)


@pytest.mark.parametrize(("source", "message"), [
    ("nowhere.mp4", "does not exist"),
    ("", "the source has no name; give a video"),
    (".", "has no images"),
    (-1, "are 0 to 99, got -1"),
    ("100", "are 0 to 99, got 100; there is no file"),
    ("99999999999", "are 0 to 99"),
    ("rtsp://me:pass@127.0.0.1:1/live", "^rtsp://127.0.0.1:1/live cannot be opened"),
    (" rtsp://me:pass@127.0.0.1:1/live", "^ rtsp://127.0.0.1:1/live is neither a file nor an address; remove what"),
    ("'rtsp://me:pass@127.0.0.1:1/live'", "^'rtsp://127.0.0.1:1/live' is neither"),
    ("ftp://host/video.mp4", "of a kind that cannot be read"),
    ("frames/*.png", "give the folder that holds the images"),
    ("frame%03d?.png", "patterns are not supported"),
])
def test_what_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str | int,
                               message: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        open_source(source)
    assert "\n" not in str(caught.value) and "pass" not in str(caught.value)


@pytest.mark.parametrize(("source", "live", "name"), [
    ("96", True, "96"), ("rtsp://me:pass@host/live?key=1", True, "rtsp://host/live"), ("clip.mp4", False, "clip.mp4"),
    (" rtsp://me:pass@host/live", False, " rtsp://host/live")])
def test_sources_that_never_end(source: str, live: bool, name: str) -> None:
    assert (is_live(source), shown_name(source)) == (live, name)
    assert files_of(source) == (() if live else (Path(source),))


@pytest.mark.parametrize("kind", ["video", "folder", "image"])
def test_a_closed_file_is_not_read(tmp_path: Path, kind: str) -> None:
    path = {"video": tmp_path / "clip.mp4", "folder": tmp_path, "image": tmp_path / "1.png"}[kind]
    write_video(path, pictures(3)) if kind == "video" else write_image(tmp_path / "1.png", pictures(1)[0])
    source = open_source(path)
    assert source.kind == kind
    source.close()
    with pytest.raises(InputError, match=f"{source.name} is closed; open it again"):
        list(source)
    source = open_source(path)
    frames = iter(source)
    assert next(frames).index == 0
    source.close()
    source.close()
    assert list(frames) == []


def test_a_closed_stream_is_not_read() -> None:
    with MjpegServer(paced(range(99))) as server:
        source = open_source(server.address)
        source.close()
        with pytest.raises(InputError, match="is closed; open it again"):
            next(iter(source))


def test_an_address_is_a_stream() -> None:
    with MjpegServer(paced(range(9))) as server, open_source(server.address) as source:
        assert (source.kind, source.is_live) == ("stream", True)
        assert len(list(islice(source, 3))) == 3


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(InputError, match="neither a file nor a folder"):
        open_source(tmp_path / "pipe.mp4")


@pytest.mark.parametrize("image_fps", [0, -5, float("nan"), float("inf"), 1001, 1e10, 5e-324, "10", None])
def test_a_senseless_rate(tmp_path: Path, image_fps: float) -> None:
    with pytest.raises(InputError, match="image_fps must be a number from 0.001 to 1000, got"):
        open_source(tmp_path, image_fps=image_fps)


LONG = f"{'a' * 300}.mp4"


def test_a_name_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        open_source(LONG)
    assert files_of(LONG) == (Path(LONG),)


def test_a_file_in_a_folder_one_may_not_enter(shut_folder: Path) -> None:
    path = shut_folder / "clip.mp4"
    with pytest.raises(InputError, match="clip.mp4 may not be read; check its permissions"):
        open_source(path)
    assert files_of(str(path)) == (path,)
