"""OpenCV prints nothing of its own, and what it printed before it prints afterwards."""
from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from media import write_image

from stmask_deploy.opencv_log import SILENCE, SILENT, opencv_logging
from stmask_deploy.picture_file import read_picture


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
        assert all(image is not None for image in pool.map(read_picture, paths * 50))
    assert opencv_logging().getLogLevel() == level
