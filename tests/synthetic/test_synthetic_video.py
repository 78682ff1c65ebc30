"""Clips as videos: the same file, whatever lay in the memory before."""
from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from perturbed_memory import needs_glibc, written_files

from stmask_deploy.errors import OutputError
from stmask_deploy.synthetic.video import FPS, write_video

PROGRAM = """if True:
    import sys
    from pathlib import Path
    from stmask_deploy.synthetic.clips import render
    from stmask_deploy.synthetic.video import write_video
    write_video(Path(sys.argv[1]), render("train", 3, 12, (192, 320)).pictures())
"""


@needs_glibc
def test_a_file_does_not_depend_on_what_was_freed(tmp_path: Path) -> None:
    first, *others = written_files(PROGRAM, tmp_path, ".mp4")
    assert all(other == first for other in others)


def test_frames_come_back(tmp_path: Path) -> None:
    write_video(tmp_path / "v.mp4", [np.full((32, 48, 3), 20 * i, np.uint8) for i in range(10)])
    with av.open(str(tmp_path / "v.mp4")) as container:
        assert container.streams.video[0].average_rate == FPS
        shown = [frame.to_ndarray(format="bgr24").mean() for frame in container.decode(video=0)]
    assert shown == pytest.approx([20 * i for i in range(10)], abs=6)


def test_a_full_disk() -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        write_video(Path("/dev/full"), [np.zeros((32, 48, 3), np.uint8)])
