"""The gate on runs made by hand: squares that stand still."""
from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_networks import TINY

from stmask_deploy.datasets.annotations import Annotations, read_annotations
from stmask_deploy.datasets.segmentation import encode
from stmask_deploy.errors import InputError
from stmask_deploy.evaluation.run_file import Row, RunFile
from stmask_deploy.export.int8_gate import Limits, clip_video, judge, read_clip_annotations

HEIGHT, WIDTH, FRAMES = 40, 60, 10


def square(left: int) -> Any:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[5:25, left:left + 20] = True
    return encode(mask)


def clip(*objects: tuple[int, float, int]) -> RunFile:
    """Objects as (left side, score, frames from the start in which they are shown)."""
    frames = tuple(tuple(Row(number, 1, "ant", score, (left, 5, left + 20, 25), square(left))
                         for number, (left, score, length) in enumerate(objects) if frame < length)
                   for frame in range(FRAMES))
    return RunFile(Path("clip.mp4"), "clip.mp4", HEIGHT, WIDTH, frames)


def truth(path: Path, names: tuple[str, ...] = TINY.class_names, **video: Any) -> Path:
    values = {"id": 7, "height": HEIGHT, "width": WIDTH, "length": FRAMES,
              "file_names": [f"clip/{frame}.jpg" for frame in range(FRAMES)], **video}
    track = {"id": 1, "video_id": 7, "category_id": 1, "segmentations": [square(0)] * int(values["length"])}
    path.write_text(json.dumps({"categories": [{"id": i, "name": name} for i, name in enumerate(names, 1)],
                                "videos": [values], "annotations": [track]}))
    return path


def annotations(tmp_path: Path) -> Annotations:
    return read_annotations(truth(tmp_path / "truth.json"))


def test_equal_runs_pass_every_limit(tmp_path: Path) -> None:
    run = clip((0, 0.9, FRAMES), (30, 0.1, FRAMES))
    found = judge(run, run, annotations(tmp_path))
    assert found.share == 100 and found.ap_loss == 0 and found.f32_ap == pytest.approx(100)
    assert found.passed(Limits(100, 0))


@pytest.mark.parametrize(("found", "share"), [
    (clip((0, 0.9, FRAMES), (30, 0.8, 5)), 75.0),  # 5 of 20 rows are gone
    (clip((0, 0.9, FRAMES), (30, 0.8, FRAMES), (40, 0.7, FRAMES)), 100 * 20 / 30),  # 10 are new
    (clip(), 0.0)])
def test_rows_that_go_and_come_count(found: RunFile, share: float) -> None:
    judgement = judge(clip((0, 0.9, FRAMES), (30, 0.8, FRAMES)), found, None)
    assert judgement.share == pytest.approx(share)
    assert judgement.passed(Limits(min_agreement=share)) and not judgement.passed(Limits(min_agreement=share + 0.1))
    assert f"(at least {share + 0.1:g})" in judgement.line(Limits(min_agreement=share + 0.1))
    assert "of the 20 rows of score 0.3 and more" in judgement.line(Limits())
    # A miss by less than a digit shows is told with more of them.
    assert f"{share:.2f}" in judgement.line(Limits(min_agreement=share + 0.01))
    assert f"{share:.1f}" in judgement.line(Limits(min_agreement=share)) or not share
    assert f"{share:.2f}" not in judgement.line(Limits(min_agreement=share)) or not share


def test_rows_that_are_not_shown_do_not_count() -> None:
    judgement = judge(clip((0, 0.9, FRAMES), (30, 0.1, FRAMES)), clip((0, 0.9, FRAMES)), None)
    assert judgement.share == 100 and judgement.score == 0.3


def test_all_rows_count_where_none_is_shown() -> None:
    judgement = judge(clip((0, 0.2, FRAMES), (30, 0.1, FRAMES)), clip((0, 0.2, FRAMES)), None)
    assert judgement.share == 50 and judgement.score == 0


def test_a_loss_of_ap_fails_where_rows_agree(tmp_path: Path) -> None:
    # The same rows, but a false object comes before the true one.
    judgement = judge(clip((0, 0.9, FRAMES), (30, 0.5, FRAMES)), clip((0, 0.5, FRAMES), (30, 0.9, FRAMES)),
                      annotations(tmp_path))
    assert judgement.share == 100 and judgement.ap_loss > 10
    assert not judgement.passed(Limits(max_ap_loss=10)) and judgement.passed(Limits(max_ap_loss=100))
    assert "in f32 100.00 (loss at most 10)" in judgement.line(Limits(max_ap_loss=10))
    assert json.loads(json.dumps(judgement.to_dict()))["ap"] == judgement.ap


def test_nothing_can_be_judged_where_f32_shows_nothing() -> None:
    with pytest.raises(InputError, match="shows nothing on clip.mp4"):
        judge(clip(), clip(), None)


@pytest.mark.parametrize(("video", "message"), [
    ({"height": 41}, "has 10 frames of 60x41 pixels, clip.mp4 has 10 of 60x40"),
    ({"length": 9, "file_names": [f"clip/{i}.jpg" for i in range(9)]}, "has 9 frames")])
def test_annotations_of_another_video(tmp_path: Path, video: dict[str, Any], message: str) -> None:
    path = truth(tmp_path / "truth.json")
    values = json.loads(path.read_text())
    values["videos"][0] |= video
    values["annotations"] = [{**values["annotations"][0], "segmentations": [None] * values["videos"][0]["length"]}]
    path.write_text(json.dumps(values))
    run = clip((0, 0.9, FRAMES))
    with pytest.raises(InputError, match=message):
        judge(run, run, read_annotations(path))


def test_annotations_of_many_videos_are_told_by_the_name_of_the_clip(tmp_path: Path) -> None:
    run, one = clip((0, 0.9, FRAMES)), annotations(tmp_path)
    other = replace(one.videos[0], id=8, file_names=tuple(f"other/{i}.jpg" for i in range(FRAMES)))
    both = replace(one, videos=(other, *one.videos))
    assert judge(run, run, both).f32_ap == pytest.approx(100)
    dotted = replace(both, videos=(replace(other, file_names=("clip.2/0.jpg", *other.file_names[1:])), *one.videos))
    assert clip_video(dotted, Path("clip.2"), (40, 60), FRAMES).id == 8  # a folder's name has no suffix
    twice = replace(both, videos=(*one.videos, replace(one.videos[0], id=8)))
    for videos, path, count in ((both, "walk.mp4", "none"), (twice, "clip.mp4", "2")):
        with pytest.raises(InputError, match=f"'{path}' is the name of {count} of the 2 videos of"):
            judge(replace(run, path=Path(path)), run, videos)


def test_annotations_on_which_f32_finds_nothing_measure_no_loss(tmp_path: Path) -> None:
    run = clip((30, 0.9, FRAMES))
    with pytest.raises(InputError, match="f32 reaches no AP on"):
        judge(run, run, annotations(tmp_path))


def test_annotations_of_other_classes(tmp_path: Path) -> None:
    assert read_clip_annotations(truth(tmp_path / "same.json"), TINY).has_tracks
    written_otherwise = tuple(name.upper() for name in TINY.class_names)
    assert read_clip_annotations(truth(tmp_path / "other.json", written_otherwise), TINY).has_tracks
    numbered = replace(TINY, class_names=("class_1", "class_2", "class_3"))
    assert read_clip_annotations(truth(tmp_path / "same.json"), numbered).has_tracks
    for names in (("ant", "bee"), ("bee", "ant", "cat")):
        with pytest.raises(InputError, match="are not those of the checkpoint"):
            read_clip_annotations(truth(tmp_path / "other.json", names), TINY)
    values = json.loads((tmp_path / "same.json").read_text())
    (tmp_path / "bare.json").write_text(json.dumps({**values, "annotations": []}))
    with pytest.raises(InputError, match="only videos"):
        read_clip_annotations(tmp_path / "bare.json", TINY)
