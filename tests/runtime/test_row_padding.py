"""Numbers of rows that libraries get to see."""
from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from stmask_deploy.runtime.backends import TensorSpec
from stmask_deploy.runtime.row_padding import RowPadding, power_of_two, within_an_eighth

INPUTS = {"boxes": TensorSpec("float32", (None, 4)), "p3": TensorSpec("float32", (1, 2, None, None)),
          "anchor_index": TensorSpec("int64", (None,))}
OUTPUTS = {"deltas": TensorSpec("float32", (None, 4)), "map": TensorSpec("float32", (None, None, 3)),
           "whole": TensorSpec("float32", (6, None))}


def test_powers_of_two() -> None:
    assert [power_of_two(rows) for rows in (0, 1, 2, 3, 4, 5, 8, 9, 100)] == [1, 1, 2, 4, 4, 8, 8, 16, 128]


def test_within_an_eighth() -> None:
    assert [within_an_eighth(rows) for rows in (0, 1, 9, 16, 17, 18, 19, 31, 33, 64, 65, 100, 129)] == [
        0, 1, 9, 16, 18, 18, 20, 32, 36, 64, 72, 104, 144]


@pytest.mark.parametrize("rounded, most, sizes", [(power_of_two, 2.0, 12), (within_an_eighth, 1.125, 73)])
def test_sizes_are_few_and_close(rounded: Callable[[int], int], most: float, sizes: int) -> None:
    found = [rounded(rows) for rows in range(2049)]
    assert all(rows <= size < most * rows for rows, size in enumerate(found) if rows > 0)
    assert found == sorted(found) and all(rounded(size) == size for size in found)
    assert len(set(found)) == sizes


@pytest.mark.parametrize("count", [0, 1, 16, 17, 20, 21])
def test_rows_are_added_and_cut_off_again(count: int) -> None:
    padding = RowPadding(INPUTS, OUTPUTS, within_an_eighth)
    given = {"boxes": np.ones((count, 4), np.float32), "p3": np.ones((1, 2, 3, 5), np.float32),
             "anchor_index": np.full(count, 7)}
    feeds = padding.padded(given)
    size = {17: 18, 21: 22}.get(count, count)
    assert list(feeds) == list(given) and feeds["p3"] is given["p3"]
    for name in ("boxes", "anchor_index"):
        assert feeds[name].shape == (size, *given[name].shape[1:]) and feeds[name].dtype == given[name].dtype
        np.testing.assert_array_equal(feeds[name][:count], given[name])
        assert not feeds[name][count:].any()
    found = padding.cut({"deltas": np.arange(size), "whole": np.arange(6)}, given)
    assert found["deltas"].tolist() == list(range(count)) and len(found["whole"]) == 6


def test_graphs_without_open_rows_are_left_alone() -> None:
    padding = RowPadding({"p3": INPUTS["p3"]}, {"map": OUTPUTS["map"]}, power_of_two)
    given = {"p3": np.ones((1, 2, 3, 5), np.float32)}
    assert padding.padded(given)["p3"] is given["p3"]
    kept = object()  # a value of the backend's own type, on its device
    assert padding.cut({"map": kept}, given) == {"map": kept}


def test_lists_are_padded_too() -> None:
    padding = RowPadding({"anchor_index": INPUTS["anchor_index"]}, {}, within_an_eighth)
    assert padding.padded({"anchor_index": list(range(17))})["anchor_index"].tolist() == [*range(17), 0]
