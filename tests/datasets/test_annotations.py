from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stmask_deploy.datasets.annotations import Category, Track, Video, read_annotations
from stmask_deploy.datasets.segmentation import decode, encode
from stmask_deploy.errors import InputError

MASK = np.zeros((4, 6), np.bool_)
MASK[1:3, 2:5] = True
RLE = encode(MASK)
# Two videos and three objects; category ids with gaps, out of order; one mask in each form.
DATASET: dict[str, Any] = {
    "info": {"description": "ignored"},
    "categories": [{"id": 9, "name": "dog", "supercategory": "ignored"}, {"id": 4, "name": "cat"}],
    "videos": [
        {"id": 5, "height": 4, "width": 6, "length": 2, "file_names": ["aa/0.jpg", "aa/1.jpg"]},
        {"id": 2, "height": 4, "width": 6, "file_names": ["0.jpg"]},
    ],
    "annotations": [
        {"id": 7, "video_id": 5, "category_id": 9, "iscrowd": 0, "segmentations": [RLE, None], "areas": [6, None]},
        {"id": 8, "video_id": 2, "category_id": 4, "iscrowd": 1,
         "segmentations": [{"size": [4, 6], "counts": [9, 2, 2, 2, 2, 2, 5]}]},
        {"id": 1, "video_id": 5, "category_id": 4, "segmentations": [None, [[2, 1, 5, 1, 5, 3, 2, 3]]]},
    ],
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Any], Path]:
    def write_json(value: Any) -> Path:
        path = tmp_path / "annotations.json"
        path.write_text(value if isinstance(value, str) else json.dumps(value))
        return path

    return write_json


def test_everything_is_read(write: Callable[[Any], Path]) -> None:
    path = write(DATASET)
    annotations = read_annotations(path)
    assert annotations.path == path
    assert annotations.categories == (Category(4, "cat"), Category(9, "dog"))  # in the order of their ids
    assert annotations.videos == (Video(5, 4, 6, 2, ("aa/0.jpg", "aa/1.jpg")), Video(2, 4, 6, 1, ("0.jpg",)))
    assert [video.name for video in annotations.videos] == ["aa", "2"]
    assert annotations.tracks[0] == Track(7, 5, 9, False, (RLE, None))
    assert annotations.tracks[1].is_crowd and not annotations.tracks[2].is_crowd
    assert annotations.has_tracks
    masks = [rle for track in annotations.tracks for rle in track.segmentations if rle is not None]
    for rle in masks:
        np.testing.assert_array_equal(decode(rle), MASK)
    assert len(masks) == 3


def test_a_path_may_be_a_string(write: Callable[[Any], Path]) -> None:
    path = write(DATASET)
    assert read_annotations(str(path)) == read_annotations(path)


def test_tracks_of_a_video(write: Callable[[Any], Path]) -> None:
    annotations = read_annotations(write(DATASET))
    assert [track.id for track in annotations.tracks_of(5)] == [7, 1]
    assert [track.id for track in annotations.tracks_of(2)] == [8]
    assert annotations.tracks_of(3) == ()


@pytest.mark.parametrize("change", [{"annotations": None}, {"annotations": []}, "without"])
def test_a_split_without_annotations(write: Callable[[Any], Path], change: Any) -> None:
    dataset = {**DATASET, **(change if isinstance(change, dict) else {})}
    if change == "without":
        del dataset["annotations"]
    annotations = read_annotations(write(dataset))
    assert not annotations.has_tracks and len(annotations.videos) == 2


@pytest.mark.parametrize("place, value, message", [
    (("categories",), None, "expected 'categories' to be a list, found null"),
    (("categories",), [], "'categories' is empty"),
    (("categories", 0, "id"), -1, r"categories\[0\]: expected 'id' to be a whole number from 0 on, found -1"),
    (("categories", 1, "id"), 9, r"categories\[1\]: 9 is also"),
    (("categories", 1, "name"), "dog", r"categories\[1\]: 'dog' is also"),
    (("categories", 1, "name"), "", "expected 'name' to be a non-empty string"),
    (("categories", 1), "cat", r"categories\[1\]: expected an object, found 'cat'"),
    (("videos",), [], "'videos' is empty"),
    (("videos",), {}, "expected 'videos' to be a list, found an object"),
    (("videos", 1, "id"), 5, r"videos\[1\]: 5 is also"),
    (("videos", 0, "id"), "5", "expected 'id' to be a whole number from 0 on, found '5'"),
    (("videos", 0, "id"), True, "found True"),
    (("videos", 0, "height"), 4.5, "expected 'height' to be a whole number from 1 on, found 4.5"),
    (("videos", 0, "width"), 10 ** 9, "too large for a picture"),
    (("videos", 0, "length"), 3, r"videos\[0\]: 'length' is 3, but there are 2 file names"),
    (("videos", 0, "file_names"), [], "a list of file names"),
    (("videos", 0, "file_names"), ["a", None], "a list of file names"),
    (("annotations",), 3, "expected 'annotations' to be a list, found 3"),
    (("annotations", 0), None, r"annotations\[0\]: expected an object, found null"),
    (("annotations", 1, "id"), 7, r"annotations\[1\]: 7 is also"),
    (("annotations", 1, "video_id"), 3, r"annotations\[1\]: video_id 3 is not among"),
    (("annotations", 1, "category_id"), 1, r"annotations\[1\]: category_id 1 is not among"),
    (("annotations", 1, "iscrowd"), 2, "expected 'iscrowd' to be 0 or 1, found 2"),
    (("annotations", 0, "segmentations"), [RLE],
     r"annotations\[0\]: expected 2 segmentations, .* video 5 \(aa\), found 1"),
    (("annotations", 0, "segmentations"), None, "expected 'segmentations' to be a list, found null"),
    (("annotations", 0, "segmentations", 0, "size"), [6, 4],
     r"annotations\[0\]: segmentations\[0\]: expected size \[4, 6\]"),
    (("annotations", 0, "segmentations", 1), 0, r"segmentations\[1\]: expected an RLE object"),
])
def test_a_wrong_entry_is_named(write: Callable[[Any], Path], place: tuple[Any, ...], value: Any, message: str
                                ) -> None:
    dataset = copy.deepcopy(DATASET)
    target: Any = dataset
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    with pytest.raises(InputError, match=rf"annotations\.json: .*{message}"):
        read_annotations(write(dataset))


@pytest.mark.parametrize("place", [
    ("categories",), ("videos",), ("categories", 0, "name"), ("videos", 0, "id"), ("videos", 0, "height"),
    ("videos", 0, "file_names"), ("annotations", 0, "id"), ("annotations", 0, "video_id"),
    ("annotations", 0, "category_id"), ("annotations", 0, "segmentations"),
])
def test_a_missing_key_is_named(write: Callable[[Any], Path], place: tuple[Any, ...]) -> None:
    dataset = copy.deepcopy(DATASET)
    target: Any = dataset
    for key in place[:-1]:
        target = target[key]
    del target[place[-1]]
    with pytest.raises(InputError, match=f"{place[-1]!r} is missing"):
        read_annotations(write(dataset))


@pytest.mark.parametrize("text, message", [
    ("", "is not a JSON file"), ("{", "is not a JSON file"), ("\x00", "is not a JSON file"), ("[" * 100_000, "JSON"),
    ("[]", "expected an object, found a list"), ("null", "found null"),
])
def test_a_file_that_is_something_else(write: Callable[[Any], Path], text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_annotations(write(text))


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.json"):
        with pytest.raises(InputError, match="cannot be read"):
            read_annotations(path)
