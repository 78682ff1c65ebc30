"""Winograd's minimal filtering: convolutions of 3x3 with a quarter of the multiplications.

Four neighbouring outputs of a filter of three need twelve multiplications; as values of a polynomial at six points they
need six (Winograd, 1980; Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, CVPR 2016, section 4). Over
both axes a tile of 4x4 outputs takes 36 instead of 144 for each pair of channels, in exchange for three linear
transforms: of what is read, of the weights, which is done once, and of the result.
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
WINDOW = TILE + KERNEL - 1  # inputs that a tile reads; as many points
# And infinity. Powers and differences of these are all near one, so that half as much is lost to cancellation as with
# the usual 0, 1, -1, 2, -2; and they have few bits, so that the matrices of rows and columns lose nothing in bf16.
POINTS = (0.0, 0.75, -0.75, 1.5, -1.5)

# With fewer channels, the transforms take as long as the products save; in bf16 products take half of the time and the
# transforms, between conversions to f32 and back, do not. With fewer tiles, it is reading four times as many weights.
FEWEST_CHANNELS = {"f32": 128, "bf16": 512}
FEWEST_TILES = 16


def _transforms() -> tuple[Any, Any, Any]:
    """Of inputs (6, 6), weights (6, 3) and results (4, 6): `results @ (weights @ g * (inputs @ d))` filters d by g."""
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
    """Weights (O, C, 3, 3) at all pairs of points: (36, C, O)."""
    filters, channels = weight.shape[:2]
    values = np.empty((WINDOW ** 2, channels, filters), np.float32)
    pairs = np.kron(WEIGHTS, WEIGHTS)
    for channel in range(channels):  # one at a time, because all of them in f64 would be as large as the network
        values[:, channel] = pairs @ weight[:, channel].reshape(filters, -1).T.astype(np.float64)
    return values


@dataclass(frozen=True)
class Axis:
    """One axis of a map in blocks of tiles: a block's transforms are matrices, which in large blocks are mostly zeros.

    Attributes:
        size: of the map, in cells; None where it is known when the graph runs.
        tiles: of a block.
    """

    size: int | None
    tiles: int

    @property
    def blocks(self) -> int:
        """How many there are, of a size that is known."""
        assert self.size is not None
        return -(-self.size // (TILE * self.tiles))

    @property
    def is_one_block(self) -> bool:
        return self.size is not None and self.blocks == 1

    @property
    def reads(self) -> int:
        """How many cells a block reads."""
        return self.size if self.size is not None and self.is_one_block else TILE * self.tiles + KERNEL - 1

    @property
    def writes(self) -> int:
        """How many cells a block writes."""
        return self.size if self.size is not None and self.is_one_block else TILE * self.tiles

    @property
    def is_exact(self) -> bool:
        """Whether the blocks end where the map does."""
        return self.size is not None and self.blocks * self.writes == self.size

    def inputs(self) -> Array:
        """Points of each tile from the cells that a block reads: (6, tiles, reads)."""
        values = np.zeros((WINDOW, self.tiles, TILE * self.tiles + KERNEL - 1))
        for tile in range(self.tiles):
            values[:, tile, TILE * tile:TILE * tile + WINDOW] = INPUTS
        if self.is_one_block:  # what it reads beyond the map is zero
            values = values[:, :, 1:1 + self.reads]
        return values.astype(np.float32)

    def results(self) -> Array:
        """Cells from the points of each tile: (writes, 6, tiles)."""
        values = np.zeros((TILE * self.tiles, WINDOW, self.tiles))
        for tile in range(self.tiles):
            values[TILE * tile:TILE * (tile + 1), :, tile] = RESULTS
        return values[:self.writes].astype(np.float32)


def axis(size: int | None, most: int) -> Axis:
    """An axis in as few blocks as have at most `most` tiles each, and all as many."""
    if size is None:
        return Axis(None, most)
    tiles = -(-size // TILE)
    blocks = -(-tiles // most)
    return Axis(size, -(-tiles // blocks))


def is_worthwhile(channels: int, filters: int, shape: Sequence[int | None], precision: str) -> bool:
    """Whether a convolution is faster so, by measurement: it needs many channels, and tiles enough.

    Args:
        channels, filters: how many it reads and writes.
        shape: (N, H, W) of what it reads, None for each that it does not fix.
        precision: "f32" or "bf16", of the products.
    """
    if min(channels, filters) < FEWEST_CHANNELS[precision]:
        return False
    maps, height, width = shape
    if maps is None or height is None or width is None:
        return True
    return maps * -(-height // TILE) * -(-width // TILE) >= FEWEST_TILES
