"""Pictures are read whole, whatever their format, and every part of a file is told from the whole."""
from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from media import cut, picture, write_coded, write_image

from stmask_deploy.opencv_log import opencv_logging
from stmask_deploy.picture_file import is_cut_off, num_pictures, read_picture

SUFFIXES = ("png", "jpg", "jpeg", "bmp", "webp", "tif", "tiff")
PICTURE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


@pytest.mark.parametrize(("suffix", "options"), [
    (".jpg", ()), (".jpg", (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)), (".jpg", (cv2.IMWRITE_JPEG_RST_INTERVAL, 1)),
    (".png", ()),
])
def test_every_part(suffix: str, options: tuple[int, ...]) -> None:
    whole = cv2.imencode(suffix, PICTURE, options)[1].tobytes()
    assert not is_cut_off(whole) and not is_cut_off(whole + b"what some cameras add")
    assert all(is_cut_off(whole[:size]) for size in range(4, len(whole)))


@pytest.mark.parametrize("data", [b"", b"\xff", b"BM of another format", b"RIFF"])
def test_other_files_are_left_to_their_decoders(data: bytes) -> None:
    assert not is_cut_off(data)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_all_formats(tmp_path: Path, suffix: str) -> None:
    image = read_picture(write_image(tmp_path / f"p.{suffix}"))
    assert image is not None
    assert np.abs(image.astype(int) - picture()).mean() < 8


@pytest.mark.parametrize("stored", [
    picture()[:, :, 0], np.dstack([picture(), picture()[:, :, :1]]), picture().astype(np.uint16) * 257,
], ids=["gray", "alpha", "16 bit"])
def test_every_pixel_type_becomes_bgr(tmp_path: Path, stored: np.ndarray) -> None:
    image = read_picture(write_image(tmp_path / "p.png", stored))
    assert image is not None
    assert (image.shape, image.dtype) == ((48, 64, 3), np.uint8)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_cut_image_is_unreadable(tmp_path: Path, suffix: str, share: float) -> None:
    whole = write_image(tmp_path / f"whole.{suffix}", picture(size=(200, 300)))
    assert read_picture(cut(tmp_path / f"cut.{suffix}", whole, share)) is None


def test_a_cut_jpeg_is_not_left_to_opencv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imdecode", lambda data, flags: picture())  # as OpenCV 4 does, filling up with grey
    whole = write_image(tmp_path / "whole.jpg")
    assert read_picture(whole) is not None
    assert read_picture(cut(tmp_path / "cut.jpg", whole, 0.9)) is None


def test_a_thumbnail_does_not_hide_a_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_image(tmp_path / "p.jpg", picture(size=(200, 300))).read_bytes()
    thumbnail = write_image(tmp_path / "t.jpg", picture(size=(16, 16))).read_bytes()
    header = b"\xff\xe1" + (len(thumbnail) + 2).to_bytes(2, "big") + thumbnail
    path = tmp_path / "with_thumbnail.jpg"
    path.write_bytes(data[:2] + header + data[2:])
    assert read_picture(path) is not None
    path.write_bytes(data[:2] + header + data[2:len(data) // 2])
    monkeypatch.setattr(cv2, "imdecode", lambda data, flags: picture())
    assert read_picture(path) is None


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.9999])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_unreadable_image_is_told_by_nobody_else(tmp_path: Path, suffix: str, share: float,
                                                    capfd: pytest.CaptureFixture[str]) -> None:
    level = opencv_logging().getLogLevel()
    whole = write_image(tmp_path / f"whole.{suffix}", picture(size=(200, 300)))
    read_picture(cut(tmp_path / f"cut.{suffix}", whole, share))
    assert capfd.readouterr() == ("", "")
    assert opencv_logging().getLogLevel() == level


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    data = write_image(tmp_path / "p.jpg").read_bytes()
    entry = b"\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00"  # orientation 6: turn clockwise to view
    exif = b"Exif\x00\x00MM\x00\x2a\x00\x00\x00\x08\x00\x01" + entry + bytes(4)
    path = tmp_path / "turned.jpg"
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:])
    image = read_picture(path)
    assert image is not None
    expected = cv2.rotate(picture(), cv2.ROTATE_90_CLOCKWISE)
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).mean() < 8


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    assert read_picture(tmp_path / "nowhere.png") is None


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_one_picture(tmp_path: Path, suffix: str) -> None:
    assert num_pictures(write_image(tmp_path / f"p.{suffix}")) == 1


def test_several_pictures_in_a_file(tmp_path: Path) -> None:
    assert cv2.imwritemulti(str(tmp_path / "pages.tif"), [picture(index) for index in range(6)])
    assert num_pictures(tmp_path / "pages.tif") == 6
    write_coded(tmp_path / "moving.apng", range(4), "apng", 10, "rgb24")
    assert num_pictures((tmp_path / "moving.apng").rename(tmp_path / "moving.png")) == 4


def test_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "words.png").write_bytes(b"no picture")
    for name in ("words.png", "gone.png", "\udcff.png"):
        assert num_pictures(tmp_path / name) == 0


@pytest.mark.parametrize(("side", "limit", "code"), [(16384, None, 0), (16385, None, 2), (16385, 2 ** 30, 0),
                                                     (9, 80, 2)])
def test_commands_decode_no_larger_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int,
                                            limit: int | None, code: int) -> None:
    monkeypatch.delenv("OPENCV_IO_MAX_IMAGE_PIXELS", raising=False)
    if limit is not None:
        monkeypatch.setenv("OPENCV_IO_MAX_IMAGE_PIXELS", str(limit))
    cv2.imwrite(str(tmp_path / "large.png"), np.zeros((side, 8192), np.uint8))
    script = ("import sys, click\nfrom stmask_deploy.console import Command\n"
              "@click.command(cls=Command)\ndef main():\n"
              "    from pathlib import Path\n    from stmask_deploy.picture_file import read_picture\n"
              "    sys.exit(0 if read_picture(Path('large.png')) is not None else 2)\nmain()")
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (code, "")
