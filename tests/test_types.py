"""Row types: checked when made, sliced and joined by rows, empty with every field."""
from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from stmask_deploy.types import Candidates, Instances, TrackedInstances


def candidates(count: int) -> Candidates:
    rows = np.arange(count, dtype=np.float32)
    return Candidates(*(np.repeat(rows[:, None], size, axis=1) for size in (4, 3)), rows,
                      *(np.repeat(rows[:, None], size, axis=1) for size in (5, 6)))


def instances(count: int, start: int = 0) -> Instances:
    rows = np.arange(start, start + count, dtype=np.float32)
    wide = {size: np.repeat(rows[:, None], size, axis=1) for size in (4, 5, 6)}
    return Instances(wide[4], rows, rows.astype(np.int64) + 1, rows, wide[5], wide[6],
                     np.broadcast_to(rows[:, None, None], (count, 2, 3)))


def tracked(count: int, start: int = 0) -> TrackedInstances:
    return TrackedInstances(instances(count, start), np.arange(start, start + count), np.zeros(count, np.int64))


def test_rows_where_a_condition_holds() -> None:
    value = tracked(3)
    assert value.where(np.ones(3, np.bool_)) is value and len(tracked(0).where(np.zeros(0, np.bool_))) == 0
    chosen = value.where(np.array([True, False, True]))
    assert chosen.ids.tolist() == [0, 2] and chosen.instances.scores.tolist() == [0, 2]


@pytest.mark.parametrize("rows, want", [
    (slice(1, 3), [1, 2]), (np.array([3, 0, 3]), [3, 0, 3]), (np.array([True, False, False, True]), [0, 3]),
    (np.zeros(0, np.int64), []), (slice(9, None), []),
])
def test_rows(rows: Any, want: list[int]) -> None:
    for value in (candidates(4), instances(4)):
        chosen = value[rows]
        assert type(chosen) is type(value) and len(chosen) == len(want)
        for field in dataclasses.fields(chosen):
            column = getattr(chosen, field.name)
            column = column[(slice(None), *[0] * (column.ndim - 1))]  # all entries of a row are equal
            assert (column - (field.name == "class_ids")).tolist() == want
    chosen = tracked(4)[rows]
    assert chosen.ids.tolist() == want and chosen.instances.scores.tolist() == want


def test_concat() -> None:
    both = Instances.concat([instances(2), instances(0), instances(3, start=2)])
    assert both.scores.tolist() == [0, 1, 2, 3, 4] and both.masks.shape == (5, 2, 3)
    tracks = TrackedInstances.concat([tracked(2), tracked(1, start=2)])
    assert tracks.ids.tolist() == [0, 1, 2] and tracks.instances.class_ids.tolist() == [1, 2, 3]


def test_replace_makes_a_copy() -> None:
    before = instances(2)
    after = before.replace(scores=np.array([7, 8], np.float32))
    assert before.scores.tolist() == [0, 1] and after.scores.tolist() == [7, 8]
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.scores = after.scores  # type: ignore[misc]


def test_empty() -> None:
    nothing = Instances.empty(32, 128, (96, 160))
    assert len(nothing) == 0
    assert {field.name: getattr(nothing, field.name).shape for field in dataclasses.fields(nothing)} == {
        "boxes": (0, 4), "scores": (0,), "class_ids": (0,), "centerness": (0,), "mask_coeffs": (0, 32),
        "embeddings": (0, 128), "masks": (0, 96, 160)}
    assert nothing.class_ids.dtype == np.int64 and nothing.boxes.dtype == np.float32
    assert len(TrackedInstances(nothing, np.zeros(0, np.int64), np.zeros(0, np.int64))) == 0


@pytest.mark.parametrize("column, value, message", [
    ("scores", np.zeros(3), r"Instances.scores: expected shape \(2\), got \(3,\)"),
    ("boxes", np.zeros(2), r"Instances.boxes: expected shape \(2, ...\), got \(2,\)"),
    ("masks", np.zeros((2, 4)), r"Instances.masks: expected shape \(2, ..., ...\), got \(2, 4\)"),
    ("class_ids", np.zeros((2, 1)), r"Instances.class_ids"),
])
def test_wrong_shapes(column: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        instances(2).replace(**{column: value})


def test_ids_and_instances_must_be_as_many() -> None:
    with pytest.raises(ValueError, match=r"TrackedInstances.ids: expected shape \(2\), got \(3,\)"):
        TrackedInstances(instances(2), np.arange(3), np.zeros(3, np.int64))
    with pytest.raises(ValueError, match="TrackedInstances.ages"):
        TrackedInstances(instances(2), np.arange(2), np.zeros(3, np.int64))
