from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from dataset import open_dataset

from stmask_deploy.errors import InputError


def test_a_dataset_is_cut_to_its_first_videos(data: Path) -> None:
    whole, cut = open_dataset(data)[0], open_dataset(data, 1)[0]
    assert (len(whole.videos), len(cut.videos)) == (2, 1)
    assert {track.video_id for track in cut.tracks} <= {cut.videos[0].id}
    assert cut.tracks_of(1) == whole.tracks_of(1)


def test_a_dataset_without_pictures(data: Path, tmp_path: Path) -> None:
    shutil.copy(data / "instances.json", tmp_path)
    with pytest.raises(InputError, match=r"JPEGImages .*; stmask-synth without --video writes pictures"):
        open_dataset(tmp_path)
