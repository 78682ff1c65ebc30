"""A convolution as nodes against plain sums, and the blocks that it is computed in."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

ov = pytest.importorskip("openvino")

from stmask_deploy.runtime.openvino_backend import shared_core  # noqa: E402
from stmask_deploy.runtime.openvino_constants import floats  # noqa: E402
from stmask_deploy.runtime.openvino_convolution import axes, convolved  # noqa: E402
from stmask_deploy.runtime.winograd import transformed  # noqa: E402

Array = NDArray[Any]


def random(*shape: int) -> Array:
    return np.random.default_rng(shape).standard_normal(shape).astype(np.float32)


def summed(x: Array, weight: Array) -> Array:
    """Slow and obvious: (H, W, N, C) and (O, C, 3, 3) -> (H, W, N, O), zeros outside."""
    height, width = x.shape[:2]
    padded = np.pad(x, ((1, 1), (1, 1), (0, 0), (0, 0))).astype(np.float64)
    return sum((padded[dy:dy + height, dx:dx + width] @ weight[:, :, dy, dx].T.astype(np.float64)
                for dy in range(3) for dx in range(3)), np.zeros(1))


def doubled(x: Array) -> Array:
    """(H, W, N, C) -> (2H, 2W, N, C): a quarter of the way to the neighbour on either side, or to the border itself."""
    for axis in (0, 1):
        last = x.shape[axis] - 1
        sides = [0.75 * x + 0.25 * x.take(np.clip(np.arange(last + 1) + step, 0, last), axis) for step in (-1, 1)]
        x = np.stack(sides, axis + 1).reshape(*(size * (1 + (place == axis)) for place, size in enumerate(x.shape)))
    return x


def run(x: Array, weight: Array, size: tuple[int | None, int | None], columns: int,
        is_upsampled: bool = False) -> Array:
    from openvino import opset13 as op

    shape = [-1 if size[0] is None else x.shape[0], -1 if size[1] is None else x.shape[1], *x.shape[2:]]
    parameter = op.parameter(shape, np.float32)
    y = convolved(parameter.output(0), floats(transformed(weight), "f32"), *axes(*size, columns, is_upsampled))
    compiled = shared_core().compile_model(ov.Model([y], [parameter]), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return np.array(compiled([x])[0])


@pytest.mark.parametrize("maps", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (10, 10), (11, 10), (5, 97), (40, 24), (33, 160)], ids=str)
def test_it_is_the_sum_of_nine(size: tuple[int, int], maps: int) -> None:
    x, weight = random(*size, maps, 8), random(5, 8, 3, 3)
    expected = summed(x, weight)
    for known in (size, (None, None)):
        np.testing.assert_allclose(run(x, weight, known, 10), expected, atol=1e-4)


@pytest.mark.parametrize("maps", [1, 2])
@pytest.mark.parametrize("size", [(6, 9), (1, 60), (24, 40), (22, 34), (16, 82)], ids=str)
def test_it_reads_a_map_that_is_yet_to_be_upsampled(size: tuple[int, int], maps: int) -> None:
    x, weight = random(*size, maps, 8), random(5, 8, 3, 3)
    height, width = 2 * size[0], 2 * size[1]
    rows, columns = axes(height, width, 5, True)
    assert rows.is_doubled and columns.is_doubled
    np.testing.assert_allclose(run(x, weight, (height, width), 5, True), summed(doubled(x), weight), atol=1e-4)


@pytest.mark.parametrize("size, columns, blocks", [
    ((48, 80), 10, (3, 2)),
    ((48, 80), 5, (3, 4)),
    ((96, 160), 10, (12, 4)),
    ((10, 10), 2, (1, 1)),  # at most 100 cells: one matrix for all
    ((10, 11), 2, (1, 2)),
    ((90, 84), 10, (8, 3)),
    ((4, 4000), 10, (1, 100)),
    ((5, 4000), 10, (2, 100)),  # no fewer than one row of tiles at a time
])
def test_blocks_hold_eighty_tiles_and_so_many_columns(size: tuple[int, int], columns: int, blocks: Any) -> None:
    rows, across = axes(*size, columns, False)
    assert (rows.size, across.size) == size and (rows.blocks, across.blocks) == blocks
    assert rows.blocks == 1 or rows.tiles == 1 or rows.tiles * -(-size[1] // 4) <= 80


def test_maps_of_a_dynamic_size_have_small_blocks() -> None:
    for size in ((None, None), (16, None), (None, 16)):
        rows, columns = axes(*size, 10, True)
        assert (rows.size, columns.size) == size and not rows.is_doubled and not columns.is_doubled
        assert rows.tiles <= 2 and columns.tiles <= 4


@pytest.mark.parametrize("columns", [5, 10])
def test_upsampled_prototypes_of_every_input_are_read_before(columns: int) -> None:
    """Inputs are padded to multiples of 32, so prototypes at a quarter of their size are multiples of 8."""
    for height in range(64, 1088, 32):
        for width in range(64, 1920, 32):
            rows, across = axes(height // 4, width // 4, columns, True)
            assert rows.is_doubled and across.is_doubled
            assert 2 <= across.tiles <= columns


@pytest.mark.parametrize("size", [(10, 10), (90, 160), (96, 162)], ids=str)
def test_other_upsampled_maps_are_made(size: tuple[int, int]) -> None:
    """Tiny ones, and those in which no blocks of four cells fit."""
    assert axes(*size, 10, True) == axes(*size, 10, False)
