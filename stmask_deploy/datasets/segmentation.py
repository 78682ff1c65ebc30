"""Masks as COCO's compressed run-length encoding (RLE), converted from any of the forms that datasets use."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from ..errors import InputError
from ..types import IntArray

MAX_OUTLINE = 10_000_000  # pixels, of all polygons of a mask together; the RLE's makers take 50 bytes and more for each
MAX_GROUPS = 7  # characters per number in compressed RLE, 5 bits each: more than any picture's pixel count needs


class Segmentation(TypedDict):
    """COCO's compressed RLE, ready to be written as JSON."""

    size: list[int]  # [height, width] of the picture
    counts: str


def normalise(segmentation: object, height: int, width: int) -> Segmentation:
    """Convert compressed RLE, uncompressed RLE (a list of counts) or polygons to compressed RLE.

    Inner runs of length zero are merged into their neighbours, because some of pycocotools' operations stop at them.

    Args:
        segmentation: as in the JSON file.
        height: of the picture, in pixels; the size stated by an RLE must agree.
        width: of the picture, in pixels.

    Raises:
        InputError: it is none of these, is damaged, or has another size; the message does not say where it is.
    """
    if isinstance(segmentation, list):
        return _from_polygons(segmentation, height, width)
    if not isinstance(segmentation, Mapping):
        raise InputError(f"expected an RLE object or polygons, found {type(segmentation).__name__}")
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != [height, width]:
        raise InputError(f"expected size [{height}, {width}] (height, width), found {size!r:.60}")
    if not isinstance(counts, str | list):
        raise InputError(f"expected counts as a string or a list, found {type(counts).__name__}")
    lengths = run_lengths(counts) if isinstance(counts, str) else _list_of_lengths(counts)
    # Each length is checked as well, because the sum of very large numbers would overflow.
    if not len(lengths) or not 0 <= lengths.min() <= lengths.max() <= height * width or lengths.sum() != height * width:
        raise InputError(f"the run lengths do not add up to the {height}x{width} pixels of the picture; the RLE is "
                         "damaged")
    if not lengths[1:].all():
        return from_run_lengths(_without_empty_runs(lengths), height, width)
    if isinstance(counts, str):
        return {"size": [height, width], "counts": counts}
    return from_run_lengths(lengths, height, width)


def encode(mask: NDArray[np.bool_]) -> Segmentation:
    """The RLE of an (H, W) mask."""
    encoded = coco_mask.encode(np.asfortranarray(mask, np.uint8))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode("ascii")}


def decode(segmentation: Segmentation) -> NDArray[np.bool_]:
    """(H, W) mask of an RLE made by `normalise` or `encode`."""
    return np.ascontiguousarray(coco_mask.decode(segmentation), np.bool_)


def run_lengths(counts: str) -> IntArray:
    """(n) lengths of the runs of 0, 1, 0, ... in a compressed RLE, in column-major order.

    Each number is written in groups of 5 bits, lowest first, one character per group; from the fourth number on it is
    stored as the difference from the last but one.

    Raises:
        InputError: these are not compressed counts. pycocotools would read past the end of such a string.
    """
    groups = np.frombuffer(counts.encode("utf-8", "surrogatepass"), np.uint8).astype(np.int64) - 48
    ends = np.flatnonzero(groups & 0x20 == 0)
    if not len(groups) or groups.min() < 0 or groups.max() > 0x3F or not len(ends) or ends[-1] != len(groups) - 1:
        raise InputError("the counts are not compressed RLE; the string is damaged or cut off")
    starts = np.concatenate([[0], ends[:-1] + 1])
    sizes = ends - starts + 1
    if sizes.max() > MAX_GROUPS:
        raise InputError("the counts are not compressed RLE; a number in them is too large")
    shifts = 5 * (np.arange(len(groups)) - np.repeat(starts, sizes))
    numbers = np.add.reduceat((groups & 0x1F) << shifts, starts)
    numbers -= np.where(groups[ends] & 0x10, 1 << 5 * sizes, 0)  # the highest bit is the sign
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers


def from_run_lengths(lengths: IntArray, height: int, width: int) -> Segmentation:
    """The RLE of the runs of 0, 1, 0, ... in column-major order; they must add up to `height * width`."""
    encoded = coco_mask.frPyObjects({"size": [height, width], "counts": lengths}, height, width)
    return {"size": [height, width], "counts": encoded["counts"].decode("ascii")}


def _list_of_lengths(counts: Sequence[Any]) -> IntArray:
    try:
        lengths = np.asarray(counts)
    except ValueError:  # nested lists of unequal lengths
        lengths = np.zeros((0, 0))
    if lengths.ndim != 1 or lengths.dtype.kind != "i":
        raise InputError("expected counts to be a flat list of whole numbers")
    return lengths.astype(np.int64)


def _without_empty_runs(lengths: IntArray) -> IntArray:
    """The same pixels, with runs of length zero merged so that only the first run may be empty."""
    present = np.flatnonzero(lengths)
    values = present % 2
    starts = np.flatnonzero(np.diff(values, prepend=-1))
    merged = np.add.reduceat(lengths[present], starts)
    return np.concatenate([[0], merged]) if values[0] else merged


def _outline(polygon: Sequence[float]) -> float:
    """Length in pixels, along the longer axis of each edge."""
    points = np.asarray(polygon, np.float64).reshape(-1, 2)
    return float(np.abs(points - np.roll(points, 1, axis=0)).max(axis=1).sum())


def _from_polygons(polygons: Sequence[Any], height: int, width: int) -> Segmentation:
    if not polygons:
        raise InputError("an empty list of polygons; a frame without the object is null")
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise InputError("expected each polygon to be a list x1, y1, x2, y2, ... of three points or more")
        if not all(isinstance(value, int | float) and -width - height <= value <= 2 * (width + height)
                   for value in polygon):
            raise InputError("a polygon has coordinates that are not numbers, or are far outside the picture")
    if sum(map(_outline, polygons)) > MAX_OUTLINE:  # pycocotools crashes where it gets no memory
        raise InputError(f"polygons with outlines of more than {MAX_OUTLINE} pixels")
    merged = coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))
    return {"size": [height, width], "counts": merged["counts"].decode("ascii")}
