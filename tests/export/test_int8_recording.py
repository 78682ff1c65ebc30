from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clips import SIZE, write_clip

from stmask_deploy.errors import InputError
from stmask_deploy.export.int8_recording import EvenSample, record
from stmask_deploy.runtime.loading import open_bundle
from stmask_deploy.runtime.preprocess import preprocess
from stmask_deploy.runtime.sources import open_source

ROLES = ("frame", "prototypes", "temporal")


@pytest.mark.parametrize("size", [1, 2, 3, 8, 100])
@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 9, 31, 100])
def test_a_sample_is_evenly_spread_and_no_larger_than_asked_for(size: int, count: int) -> None:
    sample = EvenSample(size)
    for number in range(count):
        sample.add(number)
    steps = set(np.diff(sample.kept).tolist())
    assert len(steps) <= 1 and sample.kept[:1] == ([0] if count else [])
    assert min(count, (size + 1) // 2) <= len(sample.kept) <= size
    if sample.kept:  # to the end: what would come next is beyond it
        assert sample.kept[-1] + (steps.pop() if steps else count) >= count or size == 1


def test_the_graphs_inputs_are_those_of_the_pipeline(native_bundle: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip", 4)
    recording = record(native_bundle, clip, 100, ("frame", "temporal"))
    description = open_bundle(native_bundle, device="cpu").description
    with open_source(clip) as source:
        pictures = [preprocess(frame.image, description.model)[0] for frame in source]
    assert len(recording.feeds["frame"]) == 4
    for feed, picture in zip(recording.feeds["frame"], pictures, strict=True):
        np.testing.assert_array_equal(feed["frame"], picture)
    maps = [open_bundle(native_bundle, device="cpu").frame.run({"frame": picture}) for picture in pictures]
    steps = recording.feeds["temporal"]
    assert len(steps) == 3  # from the second frame on
    for step, before, now in zip(steps, maps, maps[1:], strict=False):
        assert len(step["boxes"]) > 0
        for name, expected in (("prev_fpn", before["fpn"]), ("fpn", now["fpn"]), ("prev_temporal", before["temporal"]),
                               ("temporal", now["temporal"])):
            np.testing.assert_allclose(step[name], expected, rtol=1e-4, atol=1e-4)
    assert set(recording.feeds) == {"frame", "temporal"}  # of those that were asked for
    assert (recording.run.height, recording.run.width) == SIZE and any(recording.run.frames)


def test_no_more_inputs_are_kept_than_asked_for(native_bundle: Path, tmp_path: Path) -> None:
    recording = record(native_bundle, write_clip(tmp_path / "clip", 5), 2, ("frame",))
    assert len(recording.feeds["frame"]) <= 2
    assert len(recording.run.frames) == 5  # judged on the whole clip


def test_clips_that_are_too_short_or_show_nothing(native_bundle: Path, tmp_path: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="has 1 frame, at least 2"):
        record(native_bundle, write_clip(tmp_path / "short", 1), 100, ROLES)
    with pytest.raises(InputError, match="does not exist|no such"):
        record(native_bundle, tmp_path / "nowhere.mp4", 100, ROLES)
    opened = open_bundle(native_bundle, device="cpu")
    blind = replace(opened, description=replace(opened.description, candidate_threshold=0.9999))
    monkeypatch.setattr("stmask_deploy.export.int8_recording.open_bundle", lambda *_, **__: blind)
    with pytest.raises(InputError, match="nothing is tracked on .*clip; take a video"):
        record(native_bundle, write_clip(tmp_path / "clip", 3), 100, ROLES)


def test_a_damaged_clip_is_refused(native_bundle: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip", 4)
    (clip / "002.png").write_bytes(b"garbage")
    with pytest.raises(InputError, match="is damaged .3 frames read, 1 unreadable file"):
        record(native_bundle, clip, 100, ROLES)
