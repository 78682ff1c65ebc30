from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from tracking import instances

from stmask_deploy.errors import InputError
from stmask_deploy.geometry import FrameGeometry
from stmask_deploy.runtime.result import FrameResult
from stmask_deploy.types import TrackedInstances
from stmask_deploy.wording import counted

GEOMETRY = FrameGeometry((40, 64), (28, 32), (32, 32))  # 7 of 8 mask rows show the picture
NAMES = ("cat", "dog")


def result(cells: list[tuple[int, int, int, int]], ages: list[int], class_ids: list[int]) -> FrameResult:
    n = len(cells)
    tracked = TrackedInstances(instances(cells, [0] * n, class_ids=class_ids), np.arange(n) + 5,
                               np.array(ages, np.int64))
    return FrameResult.from_tracked(3, 0.1, tracked, GEOMETRY, NAMES)


def test_from_tracked() -> None:
    shown = result([(1, 2, 4, 5), (0, 0, 8, 8)], [0, 4], [2, 1])
    assert len(shown) == 2
    assert (shown.index, shown.time_s) == (3, 0.1)
    assert shown.ids.tolist() == [5, 6]
    assert shown.labels == ["dog", "cat"]
    assert shown.origins == ["detected", "propagated"]
    scale = 40 * 32 / 28 / 8  # pixels of the picture in a mask row
    np.testing.assert_allclose(shown.boxes_px, [[16, scale, 40, 4 * scale], [0, 0, 64, 40]], atol=1e-4)


def test_masks_patches_and_segmentations_agree() -> None:
    shown = result([(1, 2, 4, 5), (0, 0, 8, 8), (3, 3, 3, 3)], [0, 4, 0], [2, 1, 1])
    assert shown.masks.shape == (3, 40, 64)
    assert shown.masks.dtype == np.bool_
    assert shown.masks[1].all() and not shown.masks[2].any()
    assert shown.patches[2].pixels.shape == (0, 0)
    rows, columns = np.nonzero(shown.masks[0])
    patch = shown.patches[0]
    assert (patch.y, patch.x) == (rows.min(), columns.min())
    assert patch.pixels.shape == (np.ptp(rows) + 1, np.ptp(columns) + 1)
    assert abs(columns.min() - 16) <= 1 and abs(columns.max() - 39) <= 1
    for mask, segmentation in zip(shown.masks, shown.segmentations, strict=True):
        json.dumps(segmentation)
        assert segmentation["size"] == [40, 64]
        np.testing.assert_array_equal(coco_mask.decode(segmentation).astype(bool), mask)


def test_masks_are_made_once() -> None:
    shown = result([(1, 2, 4, 5)], [0], [1])
    assert shown.patches is shown.patches
    assert shown.masks is shown.masks


def test_no_instances() -> None:
    shown = result([], [], [])
    assert len(shown) == 0
    assert shown.labels == shown.origins == shown.segmentations == []
    assert shown.patches == ()
    assert shown.masks.shape == (0, 40, 64)
    assert shown.boxes_px.shape == (0, 4)


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        result([], [], []).index = 1  # type: ignore[misc]


def test_select_takes_rows_and_what_was_made_of_them() -> None:
    shown = result([(1, 2, 4, 5), (0, 0, 8, 8), (3, 3, 5, 5)], [0, 4, 0], [2, 1, 1])
    before = shown.select(np.array([False, True, True]))
    patches = shown.patches
    after = shown.select(np.array([2, 1]))
    assert before.ids.tolist() == [6, 7]
    assert before.segmentations == shown.segmentations[1:]
    assert (after.ids.tolist(), after.origins) == ([7, 6], ["detected", "propagated"])
    assert after.patches[0] is patches[2] and after.patches[1] is patches[1]
    assert after.segmentations == [shown.segmentations[2], shown.segmentations[1]]
    np.testing.assert_array_equal(after.masks, shown.masks[[2, 1]])
    assert len(shown.select(np.zeros(3, np.bool_))) == 0
    assert len(shown.select([])) == 0  # type: ignore[arg-type]
    assert shown.select([1, 1]).ids.tolist() == [shown.ids[1]] * 2  # type: ignore[arg-type]
    for rows in (1, np.int64(1), np.array(1), np.True_, [[1]], [[1], [2, 3]], [0.0], slice(1)):
        with pytest.raises(InputError, match="a list of indices or a mask"):
            shown.select(rows)  # type: ignore[arg-type]
    for rows in ([3], [0, -4]):
        with pytest.raises(InputError, match="the result has 3 rows: index (3|-4) is out of bounds"):
            shown.select(rows)  # type: ignore[arg-type]
    for length in (0, 1, 4):  # a mask of another frame, for instance
        with pytest.raises(InputError, match=f"a mask of {counted(length, 'row')} does not fit a result with 3$"):
            shown.select(np.ones(length, np.bool_))


def test_it_is_shown_in_a_line() -> None:
    shown = result([(1, 2, 4, 5), (0, 0, 8, 8)], [0, 4], [2, 1])
    first, second = shown.scores.tolist()
    assert repr(shown) == f"FrameResult(index=3, time_s=0.100: 5 dog {first:.2f}; 6 cat {second:.2f})"
    assert repr(result([], [], [])) == "FrameResult(index=3, time_s=0.100: nothing)"
