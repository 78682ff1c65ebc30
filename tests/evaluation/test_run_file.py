from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from run_sample import records, run_file, write_lines
from tiny_dataset import mask

from stmask_deploy.errors import InputError
from stmask_deploy.evaluation import run_file as module
from stmask_deploy.evaluation.run_file import read_run_file

A, B = (0, 0, 10, 10), (0, 20, 10, 10)
FRAMES = [[(7, 2, 0.5, A)], [], [(7, 1, 0.7, B), (9, 3, 0.25, A)], [(7, 2, 0.9, A)], []]


def test_entries_are_those_of_stmask_run(tmp_path: Path) -> None:
    run = run_file(tmp_path, FRAMES, source="clips/cat.mp4")
    assert (run.source, run.height, run.width, len(run.frames)) == ("cat.mp4", 20, 40, 5)
    first, second = run.entries(4, [3, 8, 11])
    # Category ids by position, the most frequent class, the mean score over the frames where it is shown.
    assert (first["video_id"], first["instance_id"], first["category_id"]) == (4, 7, 8)
    assert first["score"] == pytest.approx((0.5 + 0.7 + 0.9) / 3)
    assert first["segmentations"] == [mask(A), None, mask(B), mask(A), None]
    assert (second["instance_id"], second["category_id"], second["score"]) == (9, 11, 0.25)


def test_a_class_beyond_the_dataset(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="frame 2: class_id 3, but the dataset has 2 categories"):
        run_file(tmp_path, FRAMES).entries(1, [3, 8])


def test_a_folder_stands_for_its_file(tmp_path: Path) -> None:
    assert run_file(tmp_path, FRAMES) == read_run_file(tmp_path)


@pytest.mark.parametrize("place, value, message", [
    ((0, "height"), 0, "line 1: expected 'height'"),
    ((0, "source"), None, "line 1: expected 'source'"),
    ((1, "index"), 1, "frame 0: expected index 0, found 1"),
    ((3, "instances", 1, "id"), 7, "frame 2: an id occurs twice"),
    ((3, "instances", 1, "id"), None, r"frame 2: instances\[1\]: expected 'id'"),
    ((3, "instances", 0, "class_id"), 0, "expected 'class_id' to be a whole number from 1"),
    ((3, "instances", 0, "score"), float("nan"), "expected 'score' to be a finite number"),
    ((3, "instances", 0, "box"), [0, 1, 2], "expected 'box' to be four finite numbers"),
    ((3, "instances", 0, "box"), [0, 1, 2, float("inf")], "expected 'box' to be four finite numbers"),
    ((3, "instances", 0, "box"), [0, 1, 2, True], "expected 'box' to be four finite numbers"),
    ((3, "instances", 0, "box"), [0, 1, 2, 10 ** 400], "expected 'box' to be four finite numbers"),
    ((3, "instances", 0, "segmentation"), None, r"frame 2: instances\[0\]: segmentation: expected an RLE"),
    ((3, "instances", 0, "segmentation", "size"), [40, 20], r"segmentation: expected size \[20, 40\]"),
    ((3, "instances", 0), 3, r"instances\[0\]: expected an object"),
])
def test_a_wrong_row_is_named(tmp_path: Path, place: tuple[Any, ...], value: Any, message: str) -> None:
    lines = copy.deepcopy(records(FRAMES))
    target: Any = lines
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    with pytest.raises(InputError, match=rf"results\.jsonl, .*{message}"):
        read_run_file(write_lines(tmp_path / "results.jsonl", lines))


def test_a_file_one_may_not_look_at(shut_folder: Path) -> None:
    with pytest.raises(InputError, match="run"):
        read_run_file(shut_folder / "run")


@pytest.mark.parametrize("broken", [[0], [1], [3], [0, 2], [2, 3]])
@pytest.mark.parametrize("is_ended", [True, False])
def test_pictures_that_could_not_be_read(tmp_path: Path, broken: list[int], is_ended: bool) -> None:
    shown = [[(1, 1, 0.9, (0, index, 2, 2))] for index in range(4)]
    lines = [line for line in records(shown) if line.get("index") not in broken]
    lines[-1] |= {"frames": 4 - len(broken), "damage": {"unreadable_files": len(broken)}}
    found = read_run_file(write_lines(tmp_path / "results.jsonl", lines if is_ended else lines[:-1]))
    last = 4 if is_ended else max(set(range(4)) - set(broken)) + 1
    assert [[row.box[0] for row in rows] for rows in found.frames] == [
        [] if index in broken else [index] for index in range(last)]


@pytest.mark.parametrize(("indices", "unreadable", "told"), [
    ([0, 2], 0, "frame 1: expected index 1, found 2"), ([0, 3], 1, "expected index 1, found 3"),
    ([0, 0], 1, "expected index 1, found 0"), ([2, 1], 2, "expected index 3, found 1"),
    ([0, 10 ** 9], None, "expected index 1, found 1000000000"), ([0, 2], "many", "expected index 1"),
])
def test_gaps_that_no_picture_explains(tmp_path: Path, indices: list[int], unreadable: Any, told: str) -> None:
    lines = records([[], []])
    for line, index in zip(lines[1:3], indices, strict=True):
        line["index"] = index
    lines[-1]["damage"] = {"unreadable_files": unreadable}
    with pytest.raises(InputError, match=told):
        read_run_file(write_lines(tmp_path / "results.jsonl", lines[:-1] if unreadable is None else lines))


def test_more_than_anything_could_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ITEMS", 10)
    assert len(run_file(tmp_path / "a", FRAMES).frames) == 5  # and two identities
    monkeypatch.setattr(module, "MAX_ITEMS", 9)
    with pytest.raises(InputError, match="holds 2 identities in 5 frames, too many to compare"):
        run_file(tmp_path / "b", FRAMES)
