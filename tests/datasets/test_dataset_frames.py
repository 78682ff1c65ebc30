"""Frames of a dataset: read whole, or refused by name."""
from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from stmask_deploy.datasets.annotations import Annotations, Category, Video
from stmask_deploy.datasets.frames import check_frames, read_frame
from stmask_deploy.errors import InputError

PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)  # rich in bytes that look like markers
JPEG, PROGRESSIVE = [cv2.IMWRITE_JPEG_QUALITY, 90], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
KINDS = [(".jpg", JPEG), (".jpg", PROGRESSIVE), (".jpg", [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]), (".png", [])]


def encode(suffix: str, options: list[int]) -> bytes:
    return bytes(cv2.imencode(suffix, PICTURE, options)[1].tobytes())


def read(folder: Path, name: str, data: bytes) -> np.ndarray:
    (folder / name).write_bytes(data)
    return read_frame(folder, Video(1, 48, 64, 1, (name,)), 0)


def with_thumbnail(data: bytes) -> bytes:
    """A whole JPEG in the header of another, as cameras write it."""
    content = b"Exif\0\0" + encode(".jpg", JPEG)
    return data[:2] + b"\xff\xe1" + (len(content) + 2).to_bytes(2, "big") + content + data[2:]


@pytest.mark.parametrize(("suffix", "options"), KINDS)
@pytest.mark.parametrize("after", [b"", b"\0" * 100, b"\xff\xd8\xff"])
def test_a_whole_picture_is_read_whatever_follows_it(tmp_path: Path, suffix: str, options: list[int], after: bytes
                                                     ) -> None:
    data = encode(suffix, options)
    expected = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(read(tmp_path, "frame" + suffix, data + after), expected)


@pytest.mark.parametrize(("suffix", "options"), KINDS)
@pytest.mark.parametrize("share", [0.25, 0.5, 0.75, 0.99])
def test_a_part_of_a_picture_is_refused(tmp_path: Path, suffix: str, options: list[int], share: float) -> None:
    data = encode(suffix, options)
    with pytest.raises(InputError, match=f"frame{suffix} cannot be read .* or has more than 134 million pixels; put"):
        read(tmp_path, "frame" + suffix, data[:round(share * len(data))])


def test_the_end_of_a_thumbnail_is_not_that_of_the_picture(tmp_path: Path) -> None:
    data = with_thumbnail(encode(".jpg", JPEG))
    assert np.array_equal(read(tmp_path, "frame.jpg", data), cv2.imread(str(tmp_path / "frame.jpg")))
    with pytest.raises(InputError, match="or is cut off"):
        read(tmp_path, "frame.jpg", data[:-1000])


@pytest.mark.parametrize("data", [b"", b"no picture", b"\xff\xd8\xff\xd9"])
def test_no_picture(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InputError, match="frame.jpg cannot be read as a picture"):
        read(tmp_path, "frame.jpg", data)


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="frame.jpg cannot be read as a picture"):
        read_frame(tmp_path, Video(1, 48, 64, 1, ("frame.jpg",)), 0)


def test_another_size(tmp_path: Path) -> None:
    (tmp_path / "frame.png").write_bytes(encode(".png", []))
    with pytest.raises(InputError, match="has 48x64 pixels, its annotations are for 64x48"):
        read_frame(tmp_path, Video(1, 64, 48, 1, ("frame.png",)), 0)


def test_frames_one_may_not_look_at(shut_folder: Path) -> None:
    video = Video(1, 8, 8, 2, ("v/0.png", "v/1.png"))
    annotations = Annotations(Path("a.json"), (Category(1, "cat"),), (video,), ())
    with pytest.raises(InputError, match=r"2 of the 2 frames that a.json lists are not in .* \(the first is v/0.png\); "
                                         r"look elsewhere$"):
        check_frames(annotations, shut_folder, "look elsewhere")
