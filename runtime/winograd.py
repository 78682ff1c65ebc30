"""Winograd's minimal filtering: 3x3 convolutions with a quarter of the multiplications.

Four adjacent outputs of a 3-tap filter need twelve multiplications, but only six as products of polynomials evaluated
at six points (Winograd, 1980; Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, section 4).
In two dimensions, a tile of 4x4 outputs takes 36 instead of 144 for each pair of channels, in exchange for three linear
transforms: of the inputs, of the weights (done once), and of the results.

If the map is another one upsampled bilinearly, the upsampling is made part of the transform of the inputs.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

TILE = 4  # outputs along an axis
KERNEL = 3
WINDOW = TILE + KERNEL - 1  # inputs that a tile reads, and the number of points
# The sixth point is infinity. Powers and differences of these points are all close to one, which halves the
# cancellation error of the usual 0, 1, -1, 2, -2; and they have few bits, so matrices along an axis are exact in bf16
# (but for one entry in fifty of those of upsampled maps).
POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)

# With fewer channels, the transforms cost what the products save. In bf16 the limit is higher: products take half the
# time, so there is less to save. With fewer tiles, reading four times as many weights costs too much.
FEWEST_CHANNELS = {"f32": 128, "bf16": 256}
FEWEST_TILES = 16


def _transforms() -> tuple[Any, Any, Any]:
    """Matrices for inputs (6, 6), weights (6, 3) and results (4, 6).

    `results @ (weights @ g * (inputs @ d))` filters d by g.
    """
    points = np.array(POINTS)
    others = [np.delete(points, i) for i in range(len(points))]
    inputs = np.zeros((WINDOW, WINDOW))
    for row, roots in zip(inputs, [*others, points], strict=True):
        row[:len(roots) + 1] = np.poly(roots)[::-1]
    weights = np.vander(points, KERNEL, increasing=True)
    weights /= np.array([np.prod(point - rest) for point, rest in zip(points, others, strict=True)])[:, None]
    results = np.vander(points, TILE, increasing=True).T
    infinity = np.eye(KERNEL)[-1:], np.eye(TILE)[:, -1:]
    return inputs, np.concatenate([weights, infinity[0]]), np.concatenate([results, infinity[1]], axis=1)


INPUTS, WEIGHTS, RESULTS = _transforms()


def transformed(weight: Array) -> Array:
    """Weights (O, C, 3, 3) -> their values at all pairs of points (36, C, O)."""
    filters, channels = weight.shape[:2]
    values = np.empty((WINDOW ** 2, channels, filters), np.float32)
    pairs = np.kron(WEIGHTS, WEIGHTS)
    for channel in range(channels):  # one at a time, because all of them in f64 would take too much memory
        values[:, channel] = pairs @ weight[:, channel].reshape(filters, -1).T.astype(np.float64)
    return values


@dataclass(frozen=True)
class Axis:
    """One axis of a map, split into blocks of tiles. A block's transforms are matrices, sparse for large blocks.

    Attributes:
        size: of the map, in cells; None if only known when the graph runs.
        tiles: tiles per block.
        is_doubled: whether the map is another one that was upsampled bilinearly to twice its size, which is read
            instead; only for maps whose blocks end exactly at their end.
    """

    size: int | None
    tiles: int
    is_doubled: bool = False

    @property
    def blocks(self) -> int:
        """Number of blocks; `size` must be known."""
        assert self.size is not None
        return -(-self.size // (TILE * self.tiles))

    @property
    def is_one_block(self) -> bool:
        return self.size is not None and self.blocks == 1

    @property
    def extent(self) -> int | None:
        """Size of the map that is read."""
        return self.size // 2 if self.size is not None and self.is_doubled else self.size

    @property
    def reads(self) -> int:
        """Number of cells that a block reads."""
        if self.extent is not None and self.is_one_block:
            return self.extent
        return TILE // 2 * self.tiles + 4 if self.is_doubled else TILE * self.tiles + KERNEL - 1

    @property
    def writes(self) -> int:
        """Number of cells that a block writes."""
        return self.size if self.size is not None and self.is_one_block else TILE * self.tiles

    @property
    def is_exact(self) -> bool:
        """Whether the blocks end exactly at the end of the map."""
        return self.size is not None and self.blocks * self.writes == self.size

    def inputs(self) -> Array:
        """Matrix (6, tiles, reads) from the cells that a block reads to the values at each tile's points."""
        values = np.zeros((WINDOW, self.tiles, TILE * self.tiles + KERNEL - 1))
        for tile in range(self.tiles):
            values[:, tile, TILE * tile:TILE * tile + WINDOW] = INPUTS
        if self.is_one_block:  # cells beyond the map are zero
            values = values[:, :, 1:1 + self.writes]
        if self.is_doubled:
            values = values @ self._doubling()
        return values.astype(np.float32)

    def cells(self) -> NDArray[np.int64]:
        """Indices (blocks, reads) of the cells that each of several blocks reads; that of a zero is `extent`."""
        size = self.extent
        assert size is not None
        first = np.arange(self.blocks)[:, None] * (self.writes // 2 if self.is_doubled else self.writes)
        if not self.is_doubled:
            cells = first + np.arange(self.reads) - 1
            return np.where((cells < 0) | (cells > size), size, cells)
        # Upsampling repeats the border, but the convolution reads zeros beyond it. So the first and the last block read
        # the border once more, to subtract it (`_doubling`).
        borders = np.full((self.blocks, 2), size)
        borders[0, 0], borders[-1, 1] = 0, size - 1
        return np.concatenate([np.clip(first + np.arange(self.reads - 2) - 1, 0, size - 1), borders], axis=1)

    def _doubling(self) -> NDArray[np.float64]:
        """Matrix from the cells that a block reads to those of the upsampled map: its own and one before and after.

        A block that is the whole axis has none before and after.
        """
        beyond = 0 if self.is_one_block else 1
        values = np.zeros((self.writes + 2 * beyond, self.reads))
        for cell, row in enumerate(values, -beyond):
            for share, source in ((0.75, cell // 2), (0.25, cell // 2 + (1 if cell % 2 else -1))):
                row[source + 1 if beyond else min(max(source, 0), self.reads - 1)] += share
        if beyond:
            values[0, -2] = values[-1, -1] = -1
        return values

    def results(self) -> Array:
        """Matrix (writes, 6, tiles) from the values at each tile's points to the cells that a block writes."""
        values = np.zeros((TILE * self.tiles, WINDOW, self.tiles))
        for tile in range(self.tiles):
            values[TILE * tile:TILE * (tile + 1), :, tile] = RESULTS
        return values[:self.writes].astype(np.float32)


def axis(size: int | None, most: int, is_doubled: bool = False) -> Axis:
    """An axis in the fewest blocks of at most `most` tiles, all of equal size.

    Those of an upsampled map end where it ends, if it is a multiple of `TILE` cells.
    """
    if size is None:
        return Axis(None, most)
    tiles = -(-size // TILE)
    blocks = -(-tiles // most)
    while is_doubled and tiles % blocks:
        blocks += 1
    return Axis(size, -(-tiles // blocks), is_doubled)


def is_worthwhile(channels: int, filters: int, shape: Sequence[int | None], precision: str) -> bool:
    """Whether Winograd's algorithm was measured to be faster: with many channels, enough tiles, in bf16 a known size.

    Args:
        channels, filters: number of input and output channels.
        shape: (N, H, W) of the input, None for dynamic sizes.
        precision: "f32" or "bf16", of transforms and products.
    """
    if min(channels, filters) < FEWEST_CHANNELS[precision]:
        return False
    maps, height, width = shape
    if height is None or width is None:  # small blocks: in bf16 no faster than the plugin's, with four times the error
        return precision == "f32"
    if maps is None:
        return True
    return maps * -(-height // TILE) * -(-width // TILE) >= FEWEST_TILES
