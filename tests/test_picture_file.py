"""Every part of a picture file is told from the whole."""
from __future__ import annotations

import cv2
import numpy as np
import pytest

from stmask_deploy.picture_file import is_cut_off

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
