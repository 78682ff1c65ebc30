"""The tiny bundles are a neighbour's."""
from __future__ import annotations

import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(REPOSITORY / "tests" / "runtime"))


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven frames."""
    from stmask_deploy.runtime.video_writer import VideoWriter
    from stmask_deploy.synthetic.clips import render

    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with VideoWriter(path) as writer:
        for image in render("val", 0, 7, (90, 160)).pictures():
            writer.write(image)
    return path
