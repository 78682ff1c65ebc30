"""COCO's compressed run-length encoding of a mask, from the part of the picture where it is set."""
from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stmask_deploy.datasets.segmentation import Segmentation, from_run_lengths
from stmask_deploy.types import IntArray

from .masks import MaskPatch


def encode_patch(patch: MaskPatch, frame_hw: tuple[int, int]) -> Segmentation:
    """What `pycocotools.mask.encode` gives for the whole mask, without making the whole mask.

    Args:
        patch: must lie inside the frame.
        frame_hw: (height, width) of the picture in pixels.
    """
    height, width = frame_hw
    return from_run_lengths(run_lengths(patch, height, height * width), height, width)


def run_lengths(patch: MaskPatch, frame_height: int, num_pixels: int) -> IntArray:
    """Lengths of the runs of 0, 1, 0, ... in the picture's pixels, column after column; sums to `num_pixels`."""
    starts, ends = _runs(patch.pixels)
    starts, ends = (position + (patch.x * frame_height + patch.y) for position in
                    (_in_frame(starts, patch.pixels, frame_height), _in_frame(ends, patch.pixels, frame_height)))
    # Where the patch has the frame's full height, a run may go on at the top of the next column.
    apart = starts[1:] != ends[:-1]
    borders = np.stack([starts[np.r_[True, apart][:len(starts)]], ends[np.r_[apart, True][:len(ends)]]], axis=1).ravel()
    lengths = np.diff(borders, prepend=0, append=num_pixels)
    return lengths[:-1] if len(lengths) > 1 and lengths[-1] == 0 else lengths


def _runs(pixels: NDArray[np.bool_]) -> tuple[IntArray, IntArray]:
    """First and past-the-last positions of the runs, as column * (h + 1) + row; each run ends in its column."""
    h, w = pixels.shape
    flat = np.zeros(w * (h + 1) + 1, np.bool_)  # a leading 0, then the columns with a 0 below each
    flat[1:].reshape(w, h + 1)[:, :h] = pixels.T
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    return changes[0::2], changes[1::2]


def _in_frame(positions: IntArray, pixels: NDArray[np.bool_], frame_height: int) -> IntArray:
    column, row = np.divmod(positions, len(pixels) + 1)
    return column * frame_height + row
