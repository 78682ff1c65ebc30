"""Instance masks: assembled from prototypes, and upsampled to the original picture only where they are set."""
from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from stmask_deploy.geometry import FrameGeometry
from stmask_deploy.types import Array, IntArray

MASK_THRESHOLD = 0.5  # mask cells and pixels above it are set


@dataclass(frozen=True, eq=False)
class MaskPatch:
    """The part of a mask inside its bounding rectangle, in pixels of the original picture."""

    y: int  # row of the top edge of `pixels`
    x: int  # column of the left edge of `pixels`
    pixels: NDArray[np.bool_]  # (h, w); (0, 0) for an empty mask


def assemble_masks(prototypes: Array, mask_coeffs: Array, boxes: Array, *, tanh_passes: int = 1) -> Array:
    """Soft masks sigmoid(prototypes @ tanh(mask_coeffs)), zero outside the box enlarged by one cell (paper eq. 9).

    Args:
        prototypes: (Hm, Wm, P).
        mask_coeffs: (n, P) before tanh.
        boxes: (n, 4) xyxy, fractions of the padded frame; corners may be swapped or outside the frame.
        tanh_passes: how often tanh is applied to the coefficients: once in the model, twice in the released code
            without temporal fusion (see `FrameTracker`).

    Returns:
        (n, Hm, Wm) float32 in [0, 1]. Column j is kept if x1 * Wm - 1 <= j < x2 * Wm + 1, rows likewise.
    """
    height, width, _ = prototypes.shape
    for _ in range(tanh_passes):
        mask_coeffs = np.tanh(mask_coeffs)
    cells = [(row, slice(y1, y2), slice(x1, x2)) for row, (y1, y2, x1, x2)
             in enumerate(box_cells(boxes, (height, width))) if y1 < y2 and x1 < x2]
    logits = [prototypes[y, x] @ -mask_coeffs[row] for row, y, x in cells]
    # All masks at once: every call on many cells releases the GIL and has to wait for it again.
    values = np.concatenate([one.ravel() for one in logits]) if logits else np.zeros(0, np.float32)
    with np.errstate(over="ignore"):  # for very negative logits exp overflows to inf and the sigmoid is 0, as intended
        np.exp(values, out=values)
    values += 1
    np.reciprocal(values, out=values)
    masks = np.zeros((len(boxes), height, width), np.float32)
    start = 0
    for (row, y, x), one in zip(cells, logits, strict=True):
        masks[row, y, x] = values[start:start + one.size].reshape(one.shape)
        start += one.size
    return masks


def box_cells(boxes: Array, size: tuple[int, int]) -> list[tuple[int, int, int, int]]:
    """(n, 4) boxes -> y1, y2, x1, x2 of the cells of a (height, width) map that each mask keeps; ends are exclusive.

    NaN boxes keep none.
    """
    height, width = size
    corners = np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)
    most = np.array([width, height, width, height], np.float32)
    grown = corners * most + np.array([-1, -1, 1, 1], np.float32)
    cells = np.ceil(np.fmin(np.fmax(grown, 0), most)).astype(int).tolist()  # fmin and fmax ignore NaN
    return [(y1, y2, x1, x2) for x1, y1, x2, y2 in cells]


@dataclass(frozen=True, eq=False)
class BilinearAxis:
    """Bilinear weights from an axis of the mask to an axis of the picture: two cells per pixel, in ascending order."""

    first: IntArray  # (size,)
    second: IntArray  # (size,) the same cell or the next one
    weights: Array  # (size,) weights of `second`; those of `first` are 1 - weights

    @classmethod
    def between(cls, num_cells: int, content: float, size: int) -> BilinearAxis:
        """Weights for `size` pixels spread over the first `content` of `num_cells` cells (the others are padding).

        Half-pixel centres, edge values replicated. Positions are rounded exactly as in a float32 resize, so that binary
        masks, which often hit the threshold exactly, end up on the same side of it.
        """
        scale = np.float64(np.float32(content) / np.float32(size))
        positions = np.maximum((scale * (np.arange(size) + 0.5) - 0.5).astype(np.float32), 0)
        last = min(int(np.ceil(content)), num_cells) - 1
        first = np.minimum(positions.astype(np.int64), last)
        return cls(first, np.minimum(first + 1, last), np.clip(positions - first.astype(np.float32), 0, 1))

    @cached_property
    def num_cells(self) -> int:
        """Number of leading cells that any pixel reads."""
        return int(self.second[-1]) + 1

    @cached_property
    def other_weights(self) -> Array:
        """(size,) weights of `first`."""
        return 1 - self.weights

    @cached_property
    def _bounds(self) -> tuple[list[int], list[int]]:
        """For each cell: the first pixel that reads it or a later cell, and the first that reads no earlier cell."""
        cells = np.arange(self.num_cells + 1)
        return np.searchsorted(self.second, cells).tolist(), np.searchsorted(self.first, cells).tolist()

    def touching(self, start: int, stop: int) -> slice:
        """The pixels that read any of the cells start..stop-1."""
        starts, stops = self._bounds
        return slice(starts[min(start, self.num_cells)], stops[min(stop, self.num_cells)])


@lru_cache(maxsize=4)  # they are the same for all frames of a video
def bilinear_axes(geometry: FrameGeometry, mask_hw: tuple[int, int]) -> tuple[BilinearAxis, BilinearAxis]:
    """Row and column weights that crop the padding of a (Hm, Wm) mask and resize the rest to the original picture."""
    rows, columns = (
        BilinearAxis.between(cells, cells * resized / padded, original)
        for cells, resized, padded, original in zip(mask_hw, geometry.resized_hw, geometry.padded_hw,
                                                    geometry.original_hw, strict=True))
    return rows, columns


def upsample_mask(mask: Array, rows: BilinearAxis, columns: BilinearAxis) -> MaskPatch:
    """Upsample a soft (Hm, Wm) mask to the original picture and threshold it at 0.5.

    The result equals a bilinear resize of the whole mask. Only the neighbourhood of cells above 0.5 is computed: a
    weighted mean exceeds 0.5 only if one of its cells does.
    """
    cells = mask[:rows.num_cells, :columns.num_cells] > MASK_THRESHOLD
    x_cell, y_cell, w, h = cv2.boundingRect(cells.view(np.uint8))
    y, x = rows.touching(y_cell, y_cell + h), columns.touching(x_cell, x_cell + w)
    if y.start >= y.stop or x.start >= x.stop:
        return MaskPatch(0, 0, np.zeros((0, 0), np.bool_))
    top = rows.first[y.start]
    lines = mask[top:rows.second[y.stop - 1] + 1]
    across = lines.take(columns.first[x], axis=1)  # (h, w0)
    across *= columns.other_weights[x]
    other = lines.take(columns.second[x], axis=1)
    other *= columns.weights[x]
    across += other
    down = across.take(rows.first[y] - top, axis=0)  # (h0, w0)
    down *= rows.other_weights[y, None]
    other = across.take(rows.second[y] - top, axis=0)
    other *= rows.weights[y, None]
    down += other
    pixels = down > MASK_THRESHOLD
    x_set, y_set, w, h = cv2.boundingRect(pixels.view(np.uint8))
    if not w:
        return MaskPatch(0, 0, np.zeros((0, 0), np.bool_))
    return MaskPatch(y.start + y_set, x.start + x_set, pixels[y_set:y_set + h, x_set:x_set + w])
