from __future__ import annotations

import json
from dataclasses import replace
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


def test_a_list_for_a_dataset_whose_videos_count_from_0(tmp_path: Path) -> None:
    entries = [entry(0, 8, 0.9, [A, None])]  # an id of the dataset, not of a run
    path = tmp_path / "results.json"
    path.write_text(json.dumps(entries))
    found = read_result_list(path, dataset((0, 8, [A, A]), videos=(0, 1)))
    assert (found.entries, found.video_ids) == (entries, (0, 1))


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
    refuse(write_run(tmp_path / "length", frames=FRAMES[:1]), "has 1 frame, video video4 has 2")
    refuse(write_run(tmp_path / "size", size=(40, 20)), "is of frames of 20x40 pixels, video video4 has 40x20")
    refuse(write_run(tmp_path / "class", frames=[[(5, 3, 0.5, A)], []]), "class_id 3, but the dataset has 2 categories")
    refuse(write_run(tmp_path / "twice"), "give --video once", "1", "4")
    refuse(write_run(tmp_path / "unknown"), "'video5' is the name or id of none of the 2 videos", "video5")
    refuse(tmp_path / "missing.json", "cannot be read")
    refuse(tmp_path / "missing.jsonl", "cannot be read")


def labelled(path: Path, label: str) -> Path:
    """A run whose class 2, the dataset's dog, has this label."""
    lines = records(FRAMES, "video4")
    lines[1]["instances"][0]["label"] = label
    return write_lines(path / "results.jsonl", lines)


@pytest.mark.parametrize("in_folder", [False, True])
def test_labels_of_other_classes_are_refused(tmp_path: Path, in_folder: bool) -> None:
    labelled(tmp_path / "video4", "horse")
    refuse(tmp_path if in_folder else tmp_path / "video4",
           "results.jsonl has 'horse' for class 2, which is 'dog' in tiny.json; .* stmask-export --classes")


@pytest.mark.parametrize(("label", "name"), [
    ("dog", "dog"), ("Dog", "dog"), ("giant_panda", "Giant panda"), ("flying-disc", "flying_disc"),
    ("class_2", "dog"),  # of a bundle that does not know its classes
])
def test_labels_that_are_no_others(tmp_path: Path, label: str, name: str) -> None:
    first, second = DATASET.categories
    annotations = replace(DATASET, categories=(first, replace(second, name=name)))
    assert read_result_list(labelled(tmp_path, label), annotations).entries[0]["category_id"] == 8


def test_the_placeholder_of_another_class_is_refused(tmp_path: Path) -> None:
    refuse(labelled(tmp_path, "class_1"), "has 'class_1' for class 2, which is 'dog'")


def test_folders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    refuse(tmp_path, "holds no folders with results.jsonl")
    write_run(tmp_path / "video5")
    refuse(tmp_path, "'video5' is the name or id of none of the 2 videos of tiny.json")
    write_run(tmp_path / "video4")
    refuse(tmp_path, "'video4' is the name of a video of tiny.json, 'video5' is not")


def test_folders_have_the_names_that_runs_give_them(tmp_path: Path) -> None:
    """Of a video "my cat" stmask-run makes a folder my-cat."""
    spaced = renamed("my cat", "plain", ids=(5, 6))
    write_run(tmp_path / "runs" / "my-cat", "my cat")
    write_run(tmp_path / "runs" / "plain", "plain")
    assert [one["video_id"] for one in read_result_list(tmp_path / "runs", spaced).entries] == [5, 6]
    # A video of that very name comes first, and of two that fit neither is taken.
    assert read_result_list(tmp_path / "runs", renamed("my cat", "my-cat", "plain", ids=(5, 6, 7))).missing == (
        "my cat",)
    write_run(tmp_path / "runs" / "my cat", "my cat")
    refuse(tmp_path / "runs", "runs: my cat and my-cat are both of video my cat; take one of them away",
           annotations=spaced)
    (tmp_path / "runs" / "my cat" / "results.jsonl").unlink()
    refuse(tmp_path / "runs", "'plain' is the name of a video of tiny.json, 'my-cat' is not",
           annotations=renamed("my cat", ".my cat", "plain", ids=(5, 6, 7)))


@pytest.mark.parametrize("content", ["{}", "3", "null"])
def test_a_file_that_is_no_list(tmp_path: Path, content: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    refuse(path, "is not a result list")


def renamed(*names: str, ids: tuple[int, ...]) -> Annotations:
    """The dataset with videos of these names and ids."""
    found = dataset((ids[0], 3, [A, A]), videos=ids)
    videos = tuple(replace(video, file_names=tuple(f"{name}/{frame}.png" for frame in range(2)))
                   for video, name in zip(found.videos, names, strict=True))
    return replace(found, videos=videos)


def test_a_name_goes_before_an_id(tmp_path: Path) -> None:
    # As in datasets whose folders are numbered from 1 and whose ids are from 0 on.
    numbered = renamed("1", "2", "3", ids=(0, 1, 2))
    assert read_result_list(write_run(tmp_path), numbered, ["2"]).video_ids == (1,)
    assert read_result_list(write_run(tmp_path), numbered, ["0"]).video_ids == (0,)
    for name, score in (("1", 0.1), ("2", 0.2), ("3", 0.3)):
        write_run(tmp_path / "runs" / name, frames=[[(5, 2, score, A)], []])
    found = read_result_list(tmp_path / "runs", numbered)
    assert [(one["video_id"], one["score"]) for one in found.entries] == [(0, 0.1), (1, 0.2), (2, 0.3)]


def test_folders_may_all_be_named_by_ids(tmp_path: Path) -> None:
    write_run(tmp_path / "4")
    assert [one["video_id"] for one in read_result_list(tmp_path, DATASET).entries] == [4]


def test_two_folders_of_one_video_are_refused(tmp_path: Path) -> None:
    for name in ("five", "5"):
        write_run(tmp_path / name)
    refuse(tmp_path, "'five' is the name of a video of tiny.json, '5' is not; name every folder",
           annotations=renamed("five", "six", ids=(5, 6)))


def test_a_name_of_two_videos_is_refused(tmp_path: Path) -> None:
    refuse(write_run(tmp_path), "'one' is the name or id of 2 of the 2 videos", "one",
           annotations=renamed("one", "one", ids=(5, 6)))


def test_results_one_may_not_look_at(shut_folder: Path) -> None:
    with pytest.raises(InputError, match="results"):
        read_result_list(shut_folder / "results", dataset())


def test_a_name_counts_before_its_stem(tmp_path: Path) -> None:
    first, second = DATASET.videos
    named = [replace(video, file_names=tuple(f"{name}/{number}.jpg" for number in range(video.length)))
             for video, name in ((first, "clip"), (second, "clip.2"))]
    dataset = replace(DATASET, videos=tuple(named))
    assert read_result_list(write_run(tmp_path, "clip.2"), dataset).video_ids == (second.id,)
