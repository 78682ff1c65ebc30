"""Instance masks: assembled from prototypes, and upsampled to the original picture where they are set."""
from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from stmask_deploy.geometry import FrameGeometry
from stmask_deploy.types import Array, IntArray

MASK_THRESHOLD = 0.5  # a mask cell or pixel is set above it


@dataclass(frozen=True, eq=False)
class MaskPatch:
    """The part of a mask inside its bounding rectangle, in pixels of the original picture."""

    y: int  # row of the first line of `pixels`
    x: int  # column of the first column of `pixels`
    pixels: NDArray[np.bool_]  # (h, w); (0, 0) when nothing is set


def assemble_masks(prototypes: Array, mask_coeffs: Array, boxes: Array, *, tanh_passes: int = 1) -> Array:
    """Soft masks sigmoid(prototypes @ tanh(mask_coeffs)), zero outside the box grown by one cell (paper eq. 9).

    Args:
        prototypes: (Hm, Wm, P).
        mask_coeffs: (n, P) before tanh.
        boxes: (n, 4) xyxy, fractions of the padded frame; corners may be swapped or outside the frame.
        tanh_passes: how often the coefficients pass through tanh. One is the model; the released code without temporal
            fusion applies it twice (see `FrameTracker`).

    Returns:
        (n, Hm, Wm) float32 in [0, 1]. Column j is kept if x1 * Wm - 1 <= j < x2 * Wm + 1, rows likewise.
    """
    height, width, _ = prototypes.shape
    for _ in range(tanh_passes):
        mask_coeffs = np.tanh(mask_coeffs)
    left, right = box_cells(boxes[:, 0], boxes[:, 2], width)
    top, bottom = box_cells(boxes[:, 1], boxes[:, 3], height)
    masks = np.zeros((len(boxes), height, width), np.float32)
    with np.errstate(over="ignore"):  # exp of a very negative logit is inf, its sigmoid 0, as it should be
        for mask, coeffs, y1, y2, x1, x2 in zip(masks, mask_coeffs, top, bottom, left, right, strict=True):
            if y1 < y2 and x1 < x2:
                logits = prototypes[y1:y2, x1:x2] @ -coeffs
                np.exp(logits, out=logits)
                logits += 1
                np.reciprocal(logits, out=mask[y1:y2, x1:x2])
    return masks


def box_cells(start: Array, end: Array, size: int) -> tuple[list[int], list[int]]:
    """Half-open ranges of the cells a mask keeps along one axis; (n,) ends as fractions. Boxes of NaN keep none."""
    low = np.minimum(start, end) * np.float32(size) - 1
    high = np.maximum(start, end) * np.float32(size) + 1
    low, high = (np.nan_to_num(np.clip(side, 0, size), nan=0.0) for side in (low, high))
    return np.ceil(low).astype(int).tolist(), np.ceil(high).astype(int).tolist()


@dataclass(frozen=True, eq=False)
class BilinearAxis:
    """Bilinear weights from one axis of a mask to one axis of the picture: two cells for each pixel, ascending."""

    first: IntArray  # (size,)
    second: IntArray  # (size,) the same cell or the next
    weights: Array  # (size,) of `second`; `first` has the rest

    @classmethod
    def between(cls, num_cells: int, content: float, size: int) -> BilinearAxis:
        """Weights for `size` pixels spread over the first `content` of `num_cells` cells (the others are padding).

        Half-pixel centres, ends repeated. The positions are rounded to float32 the way float32 resizes round them, so
        that masks of 0 and 1, which often meet the threshold exactly, fall to the same side.
        """
        scale = np.float64(np.float32(content) / np.float32(size))
        positions = np.maximum((scale * (np.arange(size) + 0.5) - 0.5).astype(np.float32), 0)
        last = min(int(np.ceil(content)), num_cells) - 1
        first = np.minimum(positions.astype(np.int64), last)
        return cls(first, np.minimum(first + 1, last), np.clip(positions - first.astype(np.float32), 0, 1))

    def touching(self, start: int, stop: int) -> slice:
        """The pixels that any cell of start..stop-1 has a part in."""
        return slice(int(np.searchsorted(self.second, start, "left")), int(np.searchsorted(self.first, stop, "left")))


@lru_cache(maxsize=4)  # all frames of a video share them
def bilinear_axes(geometry: FrameGeometry, mask_hw: tuple[int, int]) -> tuple[BilinearAxis, BilinearAxis]:
    """Row and column weights that cut the padding of a (Hm, Wm) mask and stretch the rest over the original picture."""
    rows, columns = (
        BilinearAxis.between(cells, cells * resized / padded, original)
        for cells, resized, padded, original in zip(mask_hw, geometry.resized_hw, geometry.padded_hw,
                                                    geometry.original_hw, strict=True))
    return rows, columns


def upsample_mask(mask: Array, rows: BilinearAxis, columns: BilinearAxis) -> MaskPatch:
    """A soft (Hm, Wm) mask as the set pixels of the original picture.

    The same pixels as a bilinear resize of the whole mask cut at 0.5. Only the neighbourhood of cells above 0.5 is
    computed: a weighted mean exceeds 0.5 only if one of its cells does.
    """
    cells = mask[:rows.second[-1] + 1, :columns.second[-1] + 1] > MASK_THRESHOLD
    y_cells, x_cells = _extent(cells, axis=0), _extent(cells, axis=1)
    y, x = rows.touching(y_cells.start, y_cells.stop), columns.touching(x_cells.start, x_cells.stop)
    if y.start >= y.stop or x.start >= x.stop:
        return MaskPatch(0, 0, np.zeros((0, 0), np.bool_))
    top = rows.first[y.start]
    lines = mask[top:rows.second[y.stop - 1] + 1]
    across = _blend(lines, columns, x, 0, axis=1)  # (h, w0)
    pixels = _blend(across, rows, y, top, axis=0) > MASK_THRESHOLD  # (h0, w0)
    y_set, x_set = _extent(pixels, axis=0), _extent(pixels, axis=1)
    if y_set.start >= y_set.stop:
        return MaskPatch(0, 0, np.zeros((0, 0), np.bool_))
    return MaskPatch(y.start + y_set.start, x.start + x_set.start, pixels[y_set, x_set])


def _blend(cells: Array, weights: BilinearAxis, pixels: slice, offset: int, axis: int) -> Array:
    """The weighted means of two cells for each of the pixels along one axis; `cells` starts at cell `offset`."""
    share = np.expand_dims(weights.weights[pixels], 1 - axis)
    mean = cells.take(weights.first[pixels] - offset, axis)
    mean *= 1 - share
    other = cells.take(weights.second[pixels] - offset, axis)
    other *= share
    mean += other
    return mean


def _extent(cells: NDArray[np.bool_], axis: int) -> slice:
    """From the first to the last index along `axis` with a True; empty (0:0) without any."""
    where = np.flatnonzero(cells.any(axis=1 - axis))
    return slice(int(where[0]), int(where[-1]) + 1) if len(where) else slice(0, 0)
