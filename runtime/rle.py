"""COCO's compressed run-length encoding of a mask, computed from its bounding rectangle only."""
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stmask_deploy.datasets.segmentation import Segmentation, from_run_lengths
from stmask_deploy.types import IntArray

from .masks import MaskPatch


def encode_patch(patch: MaskPatch, frame_hw: tuple[int, int]) -> Segmentation:
    """The same result as `pycocotools.mask.encode` of the whole mask, without creating the whole mask.

    Args:
        patch: must lie inside the frame.
        frame_hw: (height, width) of the picture in pixels.
    """
    height, width = frame_hw
    return from_run_lengths(run_lengths(patch, height, height * width), height, width)


def run_lengths(patch: MaskPatch, frame_height: int, num_pixels: int) -> IntArray:
    """Lengths of the runs of 0, 1, 0, ... in the picture's pixels in column-major order; their sum is `num_pixels`."""
    height = len(patch.pixels)
    column, row = np.divmod(_borders(patch.pixels), height + 1)
    borders = (column + patch.x) * frame_height + (row + patch.y)
    if height == frame_height:  # then a run may continue at the top of the next column
        are_apart = borders[1:-1:2] != borders[2::2]
        is_border = np.ones(len(borders), np.bool_)
        is_border[1:-1:2] = is_border[2::2] = are_apart
        borders = borders[is_border]
    lengths = np.empty(len(borders) + 1, np.int64)
    lengths[:-1], lengths[-1] = borders, num_pixels
    lengths[1:] -= borders
    return lengths[:-1] if len(lengths) > 1 and lengths[-1] == 0 else lengths


def _borders(pixels: NDArray[np.bool_]) -> IntArray:
    """Start and end (exclusive) of each run, alternating, as column * (h + 1) + row; runs are split between columns."""
    h, w = pixels.shape
    flat = np.zeros(w * (h + 1) + 1, np.bool_)  # a leading 0, then the columns, each followed by a 0
    flat[1:].reshape(w, h + 1)[:, :h] = pixels.T
    return np.flatnonzero(flat[1:] != flat[:-1])
