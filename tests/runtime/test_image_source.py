from __future__ import annotations

import itertools
import random
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from media import picture, write_image

from stmask_deploy.errors import InputError
from stmask_deploy.runtime.frame_source import Damage
from stmask_deploy.runtime.image_source import ImageSource, list_images, natural_key


def folder_source(folder: Path, fps: float = 30.0) -> ImageSource:
    return ImageSource(list_images(folder), "folder", folder.name, fps)


def test_natural_order_times_and_pixels(tmp_path: Path) -> None:
    for number in (10, 9, 2, 1, 100):
        write_image(tmp_path / f"frame{number}.png", picture(number))
    with folder_source(tmp_path, fps=10) as source:
        frames = list(source)
    assert [frame.image.tolist() for frame in frames] == [picture(number).tolist() for number in (1, 2, 9, 10, 100)]
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.time_s for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert (source.kind, source.fps, source.num_frames, source.is_live) == ("folder", 10, 5, False)
    assert source.damage == Damage(frames=5)


def test_a_single_image_has_no_rate(tmp_path: Path) -> None:
    path = write_image(tmp_path / "one.png", picture(1))
    with ImageSource([path], "image", path.name, None) as source:
        [frame] = source
    assert (frame.index, frame.time_s, source.fps, source.num_frames) == (0, 0.0, None, 1)


@pytest.mark.parametrize("names", [
    ["1.png", "02.png", "3.png", "010.png"],  # with and without leading zeros
    ["a1b2.png", "a1b10.png", "a2b1.png"],
    ["A1.png", "b1.png", "C1.png"],  # case does not separate
    ["1.png", "a.png"],  # a number and a word at the same place
    ["frame.png", "frame1.png"],
    ["1.5.png", "1.10.png"],  # no decimal fractions
    ["99999999999999999998.png", "99999999999999999999.png"],
    ["²1.png", "²2.png"],  # a digit that is no decimal number
])
def test_natural_key_table(names: list[str]) -> None:
    shuffled = names[:]
    random.Random(0).shuffle(shuffled)
    assert sorted(shuffled, key=natural_key) == names


def test_names_that_differ_in_zeros_or_suffix_have_one_order() -> None:
    names = ["01.png", "1.jpg", "1.png"]
    for given_order in itertools.permutations(names):
        assert sorted(given_order, key=natural_key) == names


@given(st.lists(st.integers(0, 10 ** 6), unique=True), st.text(st.characters(categories=["L"]), max_size=4))
def test_numbered_files_sort_by_number(numbers: list[int], prefix: str) -> None:
    names = sorted((f"{prefix}{number}.jpg" for number in numbers), key=natural_key)
    assert names == [f"{prefix}{number}.jpg" for number in sorted(numbers)]


def test_unreadable_images_are_counted_and_leave_their_place(tmp_path: Path) -> None:
    for number in range(5):
        write_image(tmp_path / f"{number}.png", picture(number))
    (tmp_path / "0.png").write_bytes(b"")
    (tmp_path / "3.png").write_bytes(b"not a picture")
    with folder_source(tmp_path) as source:
        frames = list(source)
    assert [frame.index for frame in frames] == [1, 2, 4]
    assert source.damage == Damage(frames=3, unreadable_files=2)
    assert source.num_frames == 5


def test_the_first_unreadable_images_are_named(tmp_path: Path) -> None:
    for number in range(12):
        write_image(tmp_path / f"{number}.png", picture(number))
    for number in (1, 2, 3, 10):
        (tmp_path / f"{number}.png").write_bytes(b"")
    with folder_source(tmp_path) as source:
        assert len(list(source)) == 8
    assert str(source.damage) == "8 frames read, 4 unreadable files (1.png, 2.png, 3.png, ...)"


def test_another_size_names_the_file(tmp_path: Path) -> None:
    write_image(tmp_path / "1.png")
    write_image(tmp_path / "2.png", picture(size=(20, 30)))
    with folder_source(tmp_path) as source, pytest.raises(InputError, match=r"2.png is 30x20 .* 64x48"):
        list(source)


def test_only_images_of_the_folder_itself(tmp_path: Path) -> None:
    write_image(tmp_path / "1.PNG".lower())
    write_image(tmp_path / ".2.png")
    (tmp_path / "readme.txt").write_text("words")
    (tmp_path / "folder.png").mkdir()
    write_image(tmp_path / "folder.png" / "3.png")
    (tmp_path / "1.png").rename(tmp_path / "1.PNG")
    assert [path.name for path in list_images(tmp_path)] == ["1.PNG"]


def test_no_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no images .*png, jpg"):
        list_images(tmp_path)


@pytest.mark.parametrize(("kind", "count", "message"), [
    ("folder", 2, "any of its 2 images"), ("folder", 1, "its only image"), ("image", 1, "cannot read it")])
def test_nothing_readable(tmp_path: Path, kind: str, count: int, message: str) -> None:
    paths = [tmp_path / "1.png", tmp_path / "2.png"][:count]
    for path in paths:
        path.write_bytes(b"no")
    with pytest.raises(InputError, match=message):
        ImageSource(paths, kind, "x", 30.0)  # type: ignore[arg-type]


def test_why_a_picture_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "1.png"
    path.write_bytes(b"garbage")
    with pytest.raises(InputError, match="1.png: cannot read it; check that the pictures open elsewhere"):
        ImageSource([path], "image", path.name, None)
    for error, told in ((PermissionError(13, "Permission denied"), "cannot read it, permission denied; check"),
                        (OSError(5, "Input/output error"), r"cannot read it \(Input/output error\); check the disk")):
        def refuse(*_: object, error: OSError = error, **__: object) -> None:
            raise error

        with monkeypatch.context() as patched, pytest.raises(InputError, match=told):
            patched.setattr("builtins.open", refuse)
            patched.setattr("io.open", refuse)
            ImageSource([path], "image", path.name, None)


def test_only_the_first_of_several_pictures_is_read_and_said_to_be(tmp_path: Path, caplog: pytest.LogCaptureFixture
                                                                   ) -> None:
    path = tmp_path / "pages.tif"
    assert cv2.imwritemulti(str(path), [picture(index) for index in range(3)])
    with ImageSource([path], "image", path.name, None) as source:
        [frame] = source
    assert np.array_equal(frame.image, picture(0))
    assert caplog.messages == ["pages.tif holds 3 pictures, of which only the first is read; save them as files in a "
                               "folder, or as a video"]
    with ImageSource([path], "folder", "pages", 30.0) as source:  # where further pages are mostly thumbnails
        assert len(list(source)) == 1
    with ImageSource([write_image(tmp_path / "one.png")], "image", "one.png", None) as source:
        assert len(list(source)) == 1
    assert len(caplog.messages) == 1
