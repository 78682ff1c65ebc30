from __future__ import annotations

import json
from pathlib import Path

import pytest
from run_sample import records, write_lines
from tiny_dataset import dataset, entry

from stmask_deploy.datasets.annotations import Annotations
from stmask_deploy.errors import InputError
from stmask_deploy.evaluation.sources import read_result_list

A = (0, 0, 10, 10)
FRAMES = [[(5, 2, 0.5, A)], []]
DATASET = dataset((1, 3, [A, A]), videos=(1, 4))


def write_run(path: Path, source: str = "video4", frames: list = FRAMES, size: tuple[int, int] = (20, 40)) -> Path:
    return write_lines(path / "results.jsonl", records(frames, source, size))


def test_a_list(tmp_path: Path) -> None:
    entries = [entry(4, 3, 0.9, [A, None])]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(entries))
    found = read_result_list(path, DATASET)
    assert (found.entries, found.video_ids, found.missing) == (entries, (1, 4), ())
    assert read_result_list(path, DATASET, ["video4"]).video_ids == (4,)
    assert read_result_list(path, DATASET, ["4", "video1", "video4"]).video_ids == (4, 1)


def test_the_list_that_a_run_writes(tmp_path: Path) -> None:
    # stmask-run knows no dataset: its video is number 0, its classes are counted from 1. DATASET's ids are others.
    path = tmp_path / "results.json"
    path.write_text(json.dumps([entry(0, 2, 0.9, [A, None]), entry(0, 1, 0.8, [A, A])]))
    found = read_result_list(path, DATASET, ["video4"])
    assert found.video_ids == (4,)
    ids = [category.id for category in DATASET.categories]
    assert [(one["video_id"], one["category_id"]) for one in found.entries] == [(4, ids[1]), (4, ids[0])]
    assert [one["segmentations"] for one in found.entries] == [
        one["segmentations"] for one in json.loads(path.read_text())]
    with pytest.raises(InputError, match="results of one video, .* has 2; say which with --video"):
        read_result_list(path, DATASET)
    path.write_text(json.dumps([entry(0, 9, 0.9, [A, None])]))
    with pytest.raises(InputError, match="entry 0: category_id 9, but the dataset has"):
        read_result_list(path, DATASET, ["4"])


@pytest.mark.parametrize("source, chosen, video_id", [
    ("video4", [], 4), ("video4.mp4", [], 4), ("clips/video1", [], 1), ("video4", ["video1"], 1), ("other", ["4"], 4),
])
def test_one_video(tmp_path: Path, source: str, chosen: list[str], video_id: int) -> None:
    path = write_run(tmp_path, source)
    for given in (path, tmp_path):
        found = read_result_list(given, DATASET, chosen)
        assert (found.video_ids, found.missing) == ((video_id,), ())
        assert [(one["video_id"], one["category_id"]) for one in found.entries] == [(video_id, 8)]


def test_the_only_video_needs_no_name(tmp_path: Path) -> None:
    only = dataset((1, 3, [A, A]))
    assert read_result_list(write_run(tmp_path, "camera"), only).video_ids == (1,)


def test_a_folder_of_videos(tmp_path: Path) -> None:
    write_run(tmp_path / "video4")
    found = read_result_list(tmp_path, DATASET)
    assert (found.video_ids, found.missing) == ((1, 4), ("video1",))
    assert [one["video_id"] for one in found.entries] == [4]
    write_run(tmp_path / "video1")
    both = read_result_list(tmp_path, DATASET)
    assert ([one["video_id"] for one in both.entries], both.missing) == ([1, 4], ())
    chosen = read_result_list(tmp_path, DATASET, ["video1"])
    assert ([one["video_id"] for one in chosen.entries], chosen.video_ids) == ([1], (1,))


def refuse(path: Path, message: str, *chosen: str, annotations: Annotations = DATASET) -> None:
    with pytest.raises(InputError, match=message):
        read_result_list(path, annotations, chosen)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    refuse(write_run(tmp_path / "name", "other"), "source 'other' is the name of none of the 2 videos.*--video")
    refuse(write_run(tmp_path / "length", frames=FRAMES[:1]), "has 1 frames, video video4 has 2")
    refuse(write_run(tmp_path / "size", size=(40, 20)), "is of frames of 20x40 pixels, video video4 has 40x20")
    refuse(write_run(tmp_path / "class", frames=[[(5, 3, 0.5, A)], []]), "class_id 3, but the dataset has 2 categories")
    refuse(write_run(tmp_path / "twice"), "give --video once", "1", "4")
    refuse(write_run(tmp_path / "unknown"), "'video5' is the name or id of none of the 2 videos", "video5")
    refuse(tmp_path / "missing.json", "cannot be read")
    refuse(tmp_path / "missing.jsonl", "cannot be read")


def test_folders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    refuse(tmp_path, "holds no folders with results.jsonl")
    write_run(tmp_path / "video5")
    refuse(tmp_path, "'video5' is the name or id of none of the 2 videos of tiny.json")


@pytest.mark.parametrize("content", ["{}", "3", "null"])
def test_a_file_that_is_no_list(tmp_path: Path, content: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    refuse(path, "is not a result list")


def test_an_ambiguous_name_is_refused(tmp_path: Path) -> None:
    # The name of one video is the id of another.
    odd = dataset((1, 3, [A, A]), videos=(1, 4))
    first, second = odd.videos
    names = tuple(name.replace("video1", "4") for name in first.file_names)
    annotations = Annotations(odd.path, odd.categories, (type(first)(1, 20, 40, 2, names), second), odd.tracks)
    refuse(write_run(tmp_path), "'4' is the name or id of 2 of the 2 videos", "4", annotations=annotations)
