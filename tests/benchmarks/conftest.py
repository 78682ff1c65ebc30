"""The tiny bundles are a neighbour's, and some benchmarks measure a dataset."""
from __future__ import annotations

import sys
from pathlib import Path

import pytest

from stmask_deploy.synthetic.splits import SPLITS
from stmask_deploy.synthetic.writer import write_split

sys.path.append(str(Path(__file__).resolve().parent.parent / "runtime"))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of two clips of four small frames, to be read only."""
    folder = tmp_path_factory.mktemp("synth") / "val"
    write_split(SPLITS["val"], folder, num_clips=2, num_frames=4, size=(180, 320))
    return folder
