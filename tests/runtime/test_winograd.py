"""Winograd's transforms against the plain sums that they stand for."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from stmask_deploy.runtime.winograd import (
    INPUTS,
    KERNEL,
    RESULTS,
    TILE,
    WEIGHTS,
    WINDOW,
    Axis,
    axis,
    is_worthwhile,
    transformed,
)

Array = NDArray[Any]


def random(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def filtered(row: Array, taps: Array) -> Array:
    """Slow and obvious: each output is the sum of three neighbours by their taps, zeros outside."""
    padded = [0.0, *row, 0.0]
    return np.array([sum(padded[i + k] * taps[k] for k in range(KERNEL)) for i in range(len(row))])


def test_one_tile_is_four_sums_of_three() -> None:
    cells, taps = random(WINDOW), random(KERNEL)
    expected = [cells[i] * taps[0] + cells[i + 1] * taps[1] + cells[i + 2] * taps[2] for i in range(TILE)]
    np.testing.assert_allclose(RESULTS @ ((WEIGHTS @ taps) * (INPUTS @ cells)), expected, atol=1e-14)


def test_the_transforms_of_values_lose_nothing_in_bf16() -> None:
    for values in (INPUTS, RESULTS):
        bits = values.astype(np.float32).view(np.uint32)
        assert not np.any(bits & 0xFFFF) and np.array_equal(values, values.astype(np.float32))


@pytest.mark.parametrize("most", [1, 2, 3, 10])
@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 8, 24, 40, 41])
def test_an_axis_in_blocks_is_filtered_as_a_whole(size: int, most: int) -> None:
    part, row, taps = axis(size, most), random(size), random(KERNEL)
    assert part.tiles <= most and part.blocks * part.writes >= size
    assert part.is_exact == (part.blocks * part.writes == size)
    padded = np.concatenate([[0.0], row, np.zeros(part.blocks * TILE * part.tiles + 2)])
    found = []
    for block in range(part.blocks):
        start = block * TILE * part.tiles
        cells = row if part.is_one_block else padded[start:start + part.reads]
        points = np.einsum("atp,p->at", part.inputs(), cells)
        found.append(np.einsum("pat,at->p", part.results(), points * (WEIGHTS @ taps)[:, None]))
    np.testing.assert_allclose(np.concatenate(found)[:size], filtered(row, taps), atol=1e-5)


def doubled(row: Array) -> Array:
    """Slow and obvious: two cells for each, a quarter of the way to its neighbours; the border is its own neighbour."""
    last = len(row) - 1
    return np.array([0.75 * row[i] + 0.25 * row[min(max(i + step, 0), last)]
                     for i in range(len(row)) for step in (-1, 1)])


@pytest.mark.parametrize("size, most, blocks", [(1, 1, 1), (3, 2, 1), (5, 10, 1), (20, 10, 1), (4, 1, 2), (24, 2, 6),
                                                (40, 10, 2), (48, 8, 3), (40, 5, 4), (44, 10, 11),
                                                (34, 10, 17), (54, 5, 9)])
def test_an_upsampled_axis_is_filtered_without_being_made(size: int, most: int, blocks: int) -> None:
    part, row, taps = axis(2 * size, most, is_doubled=True), random(size), random(KERNEL)
    assert part.extent == size and part.blocks == blocks and part.is_exact
    found = []
    for block in range(blocks):
        cells = row if part.is_one_block else np.append(row, 0)[part.cells()[block]]
        points = np.einsum("atp,p->at", part.inputs(), cells)
        found.append(np.einsum("pat,at->p", part.results(), points * (WEIGHTS @ taps)[:, None]))
    np.testing.assert_allclose(np.concatenate(found), filtered(doubled(row), taps), atol=1e-5)


def test_an_upsampled_axis_is_read_at_half_its_size() -> None:
    """Few more cells than half of those that are written, whatever their number."""
    for most in (1, 2, 10, 20):
        part = axis(320, most, is_doubled=True)
        assert part.cells().shape == (part.blocks, part.reads) == (80 // most, 2 * most + 4)


@pytest.mark.parametrize("size, most", [(24, 2), (80, 10), (41, 3), (97, 10)])
def test_cells_of_blocks_overlap_and_end_in_zeros(size: int, most: int) -> None:
    part, row = axis(size, most), np.arange(1, size + 1)
    padded = np.concatenate([[0], row, np.zeros(size)])
    starts = np.arange(part.blocks) * part.writes
    expected = [padded[start:start + part.reads] for start in starts]
    assert part.cells().min() >= 0
    np.testing.assert_array_equal(np.append(row, 0)[part.cells()], expected)


def test_blocks_are_as_even_as_tiles_allow() -> None:
    assert axis(80, 10) == Axis(80, 10) and axis(84, 10) == Axis(84, 7) and axis(24, 12) == Axis(24, 6)
    assert axis(176, 10) == Axis(176, 9) and axis(176, 10, is_doubled=True) == Axis(176, 4, is_doubled=True)
    assert not Axis(None, 4).is_one_block and not Axis(None, 4).is_exact
    assert Axis(None, 4).reads == 18 and Axis(None, 4).writes == 16


def test_weights_are_transformed_channel_by_channel() -> None:
    weight = random(5, 4, KERNEL, KERNEL).astype(np.float32)
    found = transformed(weight)
    assert found.shape == (36, 4, 5) and found.dtype == np.float32
    for output in range(5):
        for channel in range(4):
            expected = (WEIGHTS @ weight[output, channel] @ WEIGHTS.T).ravel()
            np.testing.assert_allclose(found[:, channel, output], expected, rtol=1e-6)


@pytest.mark.parametrize("channels, filters, shape, expected", [
    (128, 128, (1, 16, 16), True),
    (127, 256, (1, 64, 64), False),
    (256, 127, (1, 64, 64), False),
    (256, 256, (1, 12, 20), False),
    (256, 256, (1, 13, 16), True),  # a tile may reach beyond the map
    (256, 256, (4, 7, 7), True),
    (256, 256, (3, 7, 7), False),
    (256, 256, (None, 7, 7), True),
])
def test_worth_is_judged_by_channels_and_tiles(channels: int, filters: int, shape: Any, expected: bool) -> None:
    assert is_worthwhile(channels, filters, shape, "f32") is expected
    assert is_worthwhile(2 * channels, 2 * filters, shape, "bf16") is expected
    assert not is_worthwhile(255, 512, shape, "bf16") and not is_worthwhile(512, 255, shape, "bf16")


def test_in_bf16_the_size_of_a_map_has_to_be_known() -> None:
    assert is_worthwhile(256, 256, (1, None, None), "f32") and not is_worthwhile(256, 256, (1, None, None), "bf16")
    assert not is_worthwhile(256, 256, (1, 64, None), "bf16") and not is_worthwhile(256, 256, (1, None, 64), "bf16")
