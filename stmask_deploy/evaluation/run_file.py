"""Validated `results.jsonl` files of stmask-run, as rows by frame or as entries of a result list."""
from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stmask_deploy.runtime.results_jsonl import Results, read_results
from stmask_deploy.runtime.ytvis import MAX_ITEMS, YtvisCollector

from ..classes import plain_name
from ..datasets.record import Record
from ..datasets.segmentation import Segmentation, normalise
from ..errors import InputError
from ..plain_values import is_number

RESULTS_NAME = "results.jsonl"
MAX_UNREADABLE = 100_000  # images in one folder


@dataclass(frozen=True)
class Row:
    """One instance in one frame."""

    identity: int
    class_id: int  # 1-based
    label: str
    score: float
    box: tuple[float, ...]  # (4) xyxy, in pixels of the original picture
    segmentation: Segmentation


@dataclass(frozen=True)
class RunFile:
    """The results of one video."""

    path: Path
    source: str  # name of the video file or folder, without its path
    height: int  # pixels
    width: int
    frames: tuple[tuple[Row, ...], ...]

    def entries(self, video_id: int, category_ids: Sequence[int]) -> list[dict[str, Any]]:
        """The result list as stmask-run writes it, one entry per identity, but with a dataset's ids.

        Args:
            video_id: of the video in the dataset.
            category_ids: item i is for class id i + 1.

        Raises:
            InputError: a class id has no category.
        """
        collector = YtvisCollector(video_id)
        for index, rows in enumerate(self.frames):
            collector.add_rows(index, ((row.identity, row.class_id, row.score, row.segmentation) for row in rows))
            highest = max((row.class_id for row in rows), default=0)
            if highest > len(category_ids):
                raise InputError(f"{self.path}, frame {index}: class_id {highest}, but the dataset has "
                                 f"{len(category_ids)} categories; use a model trained on it")
        return [{**entry, "category_id": category_ids[entry["category_id"] - 1]} for entry in collector.entries()]

    def check_labels(self, names: Sequence[str], dataset: Path) -> None:
        """Check that the classes are those of a dataset; case, spaces, underscores and hyphens are ignored.

        A bundle without class names calls them class_1, class_2, ..., which matches any name.

        Args:
            names: item i is the name of class id i + 1.
            dataset: its annotation file, for messages.

        Raises:
            InputError: a class has a different name.
        """
        labels = {(row.class_id, row.label) for rows in self.frames for row in rows if row.class_id <= len(names)}
        for class_id, label in sorted(labels):
            name = names[class_id - 1]
            if label != f"class_{class_id}" and plain_name(label) != plain_name(name):
                raise InputError(f"{self.path} has {label!r} for class {class_id}, which is {name!r} in {dataset}; "
                                 "take a model of these classes, or give it their names: stmask-export --classes")


def read_run_file(path: Path) -> RunFile:
    """Read a `results.jsonl` file, or the one in the folder `path`.

    Images of a folder that the run could not read have no line; they become frames without results.

    Raises:
        InputError: it cannot be read or is not such a file, or a row is incomplete or does not fit the header. The
            message names the row.
    """
    path = path / RESULTS_NAME if os.path.isdir(path) else path
    results = read_results(path)
    header = Record({"height": results.header.height, "width": results.header.width,
                     "source": results.header.source}, f"{path}, line 1")
    height, width = header.whole_number("height", minimum=1), header.whole_number("width", minimum=1)
    unreadable = _num_unreadable(results)
    frames: list[tuple[Row, ...]] = []
    for position, frame in enumerate(results.frames):
        record = Record(frame, f"{path}, frame {position}")
        index = record.whole_number("index")
        if not len(frames) <= index <= position + unreadable:
            raise record.error(f"expected index {len(frames)}, found {index}; the file is damaged")
        frames += [()] * (index - len(frames))
        frames.append(tuple(_read_row(row, height, width) for row in record.records("instances")))
        if len({row.identity for row in frames[-1]}) != len(frames[-1]):
            raise record.error("an id occurs twice")
    if results.end is not None:
        frames += [()] * (len(results.frames) + unreadable - len(frames))
    identities = {row.identity for rows in frames for row in rows}
    if len(identities) * len(frames) > MAX_ITEMS:
        raise InputError(f"{path} holds {len(identities)} identities in {len(frames)} frames, too many to compare; "
                         "run the video in parts")
    return RunFile(path, Path(header.text("source")).name, height, width, tuple(frames))


def _num_unreadable(results: Results) -> int:
    """Number of images without a line; for a run that did not finish, an upper bound."""
    if results.end is None:
        return MAX_UNREADABLE
    damage = results.end.get("damage")
    count = damage.get("unreadable_files", 0) if isinstance(damage, dict) else 0
    return count if isinstance(count, int) and 0 <= count <= MAX_UNREADABLE else 0


def _read_row(record: Record, height: int, width: int) -> Row:
    box = record.array("box")
    if len(box) != 4 or not all(map(is_number, box)):
        raise record.error("expected 'box' to be four finite numbers")
    try:
        segmentation = normalise(record.get("segmentation"), height, width)
    except InputError as error:
        raise record.error(f"segmentation: {error}") from error
    return Row(record.whole_number("id"), record.whole_number("class_id", minimum=1), record.text("label"),
               record.number("score"), tuple(map(float, box)), segmentation)
