"""A 3x3 convolution by Winograd's algorithm, as nodes of a graph in OpenVINO.

Matrices along rows and columns transform a map into values at points, and back; in between, each pair of points is a
separate matrix product.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from .openvino_constants import element_type, floats, int64, reshaped
from .winograd import TILE, WINDOW, Axis, axis

Node = Any  # an openvino.Node or openvino.Output, of a package that may be absent
Size = Any  # an int, or a Node of one number where the model does not fix it

PAIRS = WINDOW ** 2  # pairs of points
SMALL = 100  # cells: for maps up to this size, one matrix for all cells is faster than one each for rows and columns
# By measurement: tiles computed at a time, so that intermediate results stay in the cache; and (rows, columns) of tiles
# per block for maps of dynamic size, where small blocks waste less at the border.
BAND, OPEN_BLOCK = 80, (2, 4)


def axes(height: int | None, width: int | None, columns: int, is_upsampled: bool) -> tuple[Axis, Axis]:
    """Rows and columns of a map of this size (None: dynamic), in blocks of at most `columns` tile columns.

    Those of a map that `is_upsampled` have `is_doubled` set if the map can be read before it is upsampled.
    """
    if height is None or width is None:
        return axis(height, OPEN_BLOCK[0]), axis(width, OPEN_BLOCK[1])
    if height * width <= SMALL:
        return axis(height, height), axis(width, width)
    parts = axis(height, max(BAND * TILE // width, 1), is_upsampled), axis(width, columns, is_upsampled)
    if is_upsampled and not all(part.is_exact for part in parts):
        return axes(height, width, columns, False)
    return parts


def convolved(x: Node, weight: Node, rows: Axis, columns: Axis) -> Node:
    """A convolution of stride 1 and with a border of one zero.

    Args:
        x: maps (H, W, N, C), or, if the axes are doubled, those that are upsampled to them, in f32 or bf16.
        weight: transformed weights (36, C, O) of the same type.
        rows, columns: the `axes` of the maps.

    Returns:
        (H, W, N, O).
    """
    is_small = rows.size is not None and columns.size is not None and rows.size * columns.size <= SMALL
    return (_convolved_at_once if is_small else _convolved_by_axis)(x, weight, rows, columns)


def _convolved_at_once(x: Node, weight: Node, rows: Axis, columns: Axis) -> Node:
    from openvino import opset13 as op

    cells = rows.reads * columns.reads
    inputs = np.einsum("atp,bsq->abtspq", rows.inputs(), columns.inputs()).reshape(-1, cells)
    results = np.einsum("pat,qbs->pqabts", rows.results(), columns.results()).reshape(cells, -1)
    points = op.matmul(floats(inputs, element_type(x)), _reshaped(x, [cells, -1]), False, False)
    products = _products(points, weight)
    y = op.matmul(floats(results, element_type(x)), _reshaped(products, [len(inputs), -1]), False, False)
    return _reshaped(y, [rows.writes, columns.writes, -1, weight.get_shape()[2]])


def _convolved_by_axis(x: Node, weight: Node, rows: Axis, columns: Axis) -> Node:
    from openvino import opset13 as op

    height, width = (_size(x, place, part.extent) for place, part in enumerate((rows, columns)))
    down, across = _blocks(height, rows), _blocks(width, columns)
    windows = _windows(x, 0, rows, height, down)
    if isinstance(down, int) and down > 1:
        y = op.concat([_band(band, weight, rows, columns, 1, width, across)
                       for band in op.split(windows, int64(0), down).outputs()], 0)
    else:
        y = _band(windows, weight, rows, columns, down, width, across)
    if rows.is_exact and columns.is_exact:
        return y
    return op.slice(y, int64([0, 0]), _shape([height, width]), int64([1, 1]), int64([0, 1]))


def _band(x: Node, weight: Node, rows: Axis, columns: Axis, down: Size, width: Size, across: Size) -> Node:
    """Row blocks (down * reads, W, N, C) and weights (36, C, O) -> (down * writes, across * writes, N, O)."""
    from openvino import opset13 as op

    kind, tile_rows = element_type(x), _times(down, rows.tiles)
    points = op.matmul(floats(rows.inputs()[:, None], kind), _reshaped(x, [1, down, rows.reads, -1]), False, False)
    points = _windows(_reshaped(points, [WINDOW, tile_rows, width, -1]), 2, columns, width, across)
    points = op.matmul(floats(columns.inputs()[None, :, None, None], kind),
                       _reshaped(points, [WINDOW, 1, tile_rows, across, columns.reads, -1]), False, False)
    products = _reshaped(_products(points, weight), [WINDOW, WINDOW, _times(tile_rows, across), columns.tiles, -1])
    products = _reshaped(op.transpose(products, int64([0, 2, 1, 3, 4])),
                         [_times(_times(tile_rows, WINDOW), across), WINDOW * columns.tiles, -1])
    y = op.matmul(floats(columns.results().reshape(1, columns.writes, -1), kind), products, False, False)
    if not isinstance(down, int) or down > 1:
        y = op.transpose(_reshaped(y, [WINDOW, down, rows.tiles, -1]), int64([1, 0, 2, 3]))
    y = op.matmul(floats(rows.results().reshape(1, rows.writes, -1), kind),
                  _reshaped(y, [down, WINDOW * rows.tiles, -1]), False, False)
    return _reshaped(y, [_times(down, rows.writes), _times(across, columns.writes), -1, weight.get_shape()[2]])


def _products(points: Node, weight: Node) -> Node:
    """Multiply the values at all pairs of points, 36 * n * C in any shape, by weights (36, C, O) -> (36, n, O)."""
    from openvino import opset13 as op

    return op.matmul(_reshaped(points, [PAIRS, -1, weight.get_shape()[1]]), weight, False, False)


def _windows(x: Node, place: int, part: Axis, size: Size, blocks: Size) -> Node:
    """`x` with the (overlapping) cells that each block reads along axis `place`, block after block."""
    from openvino import opset13 as op

    if part.is_one_block:
        return x
    if part.size is not None:
        return op.gather(x, int64(part.cells().ravel()), int64(place))
    block = op.range(int64(0), op.squeeze(_shape([blocks]), int64([0])), int64(1), "i64")
    starts = op.multiply(_reshaped(block, [-1, 1]), int64([[TILE * part.tiles]]))
    cells = _reshaped(op.add(starts, int64(np.arange(part.reads)[None] - 1)), [-1])
    # Gather returns zeros for indices out of range, but counts negative ones from the end: map those to `size`.
    cells = op.select(op.less(cells, int64([0])), _shape([size]), cells)
    return op.gather(x, cells, int64(place))


def _size(x: Node, place: int, fixed: int | None) -> Size:
    from openvino import opset13 as op

    return op.gather(op.shape_of(x, "i64"), int64([place]), int64(0)) if fixed is None else fixed


def _blocks(size: Size, part: Axis) -> Size:
    from openvino import opset13 as op

    if part.size is not None:
        return part.blocks
    cells = TILE * part.tiles
    return op.divide(op.add(size, int64([cells - 1])), int64([cells]))


def _times(size: Size, factor: Size) -> Size:
    from openvino import opset13 as op

    if isinstance(size, int) and isinstance(factor, int):
        return size * factor
    return op.multiply(_shape([size]), _shape([factor]))


def _shape(sizes: list[Size]) -> Node:
    from openvino import opset13 as op

    if all(isinstance(size, int) for size in sizes):
        return int64(sizes)
    return op.concat([int64([size]) if isinstance(size, int) else size for size in sizes], 0)


def _reshaped(value: Node, sizes: list[Size]) -> Node:
    return reshaped(value, _shape(sizes))
