from __future__ import annotations

import gc
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media import pictures, write_coded, write_video

from stmask_deploy.runtime.video_source import VideoSource


@pytest.mark.parametrize(("rotation", "quarter_turns"), [(90, 1), (180, 2), (-90, 3)])
def test_rotation_metadata_is_applied(tmp_path: Path, rotation: int, quarter_turns: int) -> None:
    stored = pictures(3)
    with VideoSource(write_video(tmp_path / "turned.mp4", stored, rotation=rotation)) as source:
        images = [frame.image for frame in source]
    expected = np.rot90(stored[1], quarter_turns)
    assert (source.height, source.width) == expected.shape[:2]
    assert images[1].shape == expected.shape
    assert np.abs(images[1].astype(int) - expected).mean() < 6


@pytest.mark.parametrize(("matrix", "upright"), [
    ((1, 0, 0, 1), lambda image: image), ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    ((1, 0, 0, -1), lambda image: image[::-1]), ((0, 1, 1, 0), lambda image: image.transpose(1, 0, 2)),
    ((0, -1, -1, 0), lambda image: np.rot90(image, 2).transpose(1, 0, 2)),
    ((0, 1, -1, 0), lambda image: np.rot90(image, -1)), ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
    ((0.9, 0.4, -0.4, 0.9), lambda image: image),  # 24 degrees, which no program can show without cutting corners
])
def test_display_matrices_are_applied(tmp_path: Path, matrix: tuple[float, ...],
                                      upright: Callable[[np.ndarray], np.ndarray]) -> None:
    path = write_video(tmp_path / "plain.mp4", pictures(2))
    with VideoSource(path) as source:
        plain = [frame.image for frame in source]
    data = bytearray(path.read_bytes())
    start = data.find(b"tkhd") + 44  # of a version 0 header
    a, b, c, d = (round(value * 65536) for value in matrix)
    assert struct.unpack_from(">9i", data, start) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", data, start, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    with VideoSource(path) as source:
        for frame, picture in zip(source, plain, strict=True):
            np.testing.assert_array_equal(frame.image, upright(picture))


@pytest.mark.parametrize("rotation", [0, 90])
def test_no_picture_stays_in_memory(tmp_path: Path, rotation: int) -> None:
    """Not even until Python looks for circles of references, which it does too rarely for what pictures take."""
    path = write_video(tmp_path / "v.mp4", pictures(20), rotation=rotation)
    gc.disable()
    try:
        with VideoSource(path) as source:
            assert len(list(source)) == 20
        left = sum(type(one) is av.VideoFrame for one in gc.get_objects())
    finally:
        gc.enable()
    assert left <= 2  # an empty one belongs to the decoder


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted as Linux lists them")
def test_no_thread_stays_when_a_source_is_closed_early(tmp_path: Path) -> None:
    path = write_video(tmp_path / "v.mp4", pictures(60, (480, 640)))  # large enough for a decoder with threads

    def count() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    gc.collect()
    before = count()
    gc.disable()
    try:
        with VideoSource(path) as source:
            next(iter(source))
            assert count() > before
        del source
        assert count() == before
    finally:
        gc.enable()


@pytest.mark.parametrize(("aspect", "rotation", "expected"), [
    (None, 0, Fraction(1)), (Fraction(3, 2), 0, Fraction(3, 2)), (Fraction(3, 2), 90, Fraction(2, 3)),
    (Fraction(3, 2), 180, Fraction(3, 2)), (Fraction(16, 11), -90, Fraction(11, 16)),
])
def test_the_aspect_of_pixels(tmp_path: Path, aspect: Fraction | None, rotation: int, expected: Fraction) -> None:
    path = write_coded(tmp_path / "v.mp4", range(2), "libx264", 30, aspect=aspect, rotation=rotation)
    with VideoSource(path) as source:
        assert source.pixel_aspect == expected
