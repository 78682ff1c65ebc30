from __future__ import annotations

from pathlib import Path

from dataset import open_dataset


def test_a_dataset_is_cut_to_its_first_videos(data: Path) -> None:
    whole, cut = open_dataset(data)[0], open_dataset(data, 1)[0]
    assert (len(whole.videos), len(cut.videos)) == (2, 1)
    assert {track.video_id for track in cut.tracks} <= {cut.videos[0].id}
    assert cut.tracks_of(1) == whole.tracks_of(1)
