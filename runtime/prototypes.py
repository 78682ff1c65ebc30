"""Prototypes computed only where they are read: inside the boxes of a frame's objects."""
from __future__ import annotations

import numpy as np

from stmask_deploy.types import Array

from .backends import Backend, check_finite
from .masks import box_cells

# Receptive field of the prototypes, in cells of P3 on each side: three 3x3 convolutions add one each, the upsampling
# with the 3x3 convolution after it one more. Windows end at the frame's own border.
REACH = 4
STEP = 4  # cells: windows begin and end at multiples of it, because libraries prepare anew for every size


def prototypes_within(boxes: Array, p3: Array, graph: Backend) -> Array:
    """Prototypes in all cells that masks inside `boxes` read.

    Args:
        boxes: (n, 4) xyxy, fractions of the padded frame; corners may be swapped or outside the frame.
        p3: (1, F, h, w) pyramid level that prototypes are computed from.
        graph: the prototype graph. Runs at most once, on the smallest window (see `STEP`) that covers all boxes, or on
            all of `p3` if that takes less time.

    Returns:
        (2h, 2w, P) float32, equal to the whole frame's prototypes in every cell that `masks.assemble_masks` reads for
        these boxes; elsewhere either equal or zero.

    Raises:
        StmaskError: the graph fails, or returns NaN or infinite values.
    """
    height, width = p3.shape[2:]
    prototypes = np.zeros((2 * height, 2 * width, graph.outputs["prototypes"].shape[2] or 0), np.float32)
    rows, columns = covered_cells(boxes, (2 * height, 2 * width))
    if rows.start == rows.stop:
        return prototypes
    y, x = _window(rows, height), _window(columns, width)
    if (y.stop - y.start) * (x.stop - x.start) >= graph.whole_from * height * width:
        y, x = slice(0, height), slice(0, width)
    found: Array = graph.run({"p3": np.ascontiguousarray(p3[:, :, y, x])})["prototypes"]
    check_finite("prototype", found)
    if found.shape == prototypes.shape:
        return found
    prototypes[rows, columns] = found[rows.start - 2 * y.start:rows.stop - 2 * y.start,
                                      columns.start - 2 * x.start:columns.stop - 2 * x.start]
    return prototypes


def covered_cells(boxes: Array, size: tuple[int, int]) -> tuple[slice, slice]:
    """Rows and columns of the smallest rectangle of prototype cells that covers all `boxes`' masks; 0:0 if none."""
    read = [(y1, y2, x1, x2) for y1, y2, x1, x2 in box_cells(boxes, size) if y1 < y2 and x1 < x2]
    if not read:
        return slice(0, 0), slice(0, 0)
    tops, bottoms, lefts, rights = zip(*read, strict=True)
    return slice(min(tops), max(bottoms)), slice(min(lefts), max(rights))


def _window(cells: slice, size: int) -> slice:
    """The part of an axis of P3, `size` cells long, that prototype `cells` depend on, extended to multiples of `STEP`.
    """
    start = cells.start // 2 - REACH
    stop = -(-cells.stop // 2) + REACH
    return slice(max(start // STEP * STEP, 0), min(-(-stop // STEP) * STEP, size))
