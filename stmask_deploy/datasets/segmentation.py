"""A mask as COCO's compressed run-length encoding, whichever way a dataset wrote it down."""
from __future__ import annotations

from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from ..errors import InputError
from ..types import IntArray


class Segmentation(TypedDict):
    """COCO's compressed RLE, ready for JSON."""

    size: list[int]  # [height, width] of the picture
    counts: str


def normalise(segmentation: object, height: int, width: int) -> Segmentation:
    """A mask of a picture of `height` x `width` pixels in its one form.

    Args:
        segmentation: compressed RLE (`counts` a string), uncompressed RLE (`counts` a list of run lengths), or a list
            of polygons, each [x0, y0, x1, y1, ...] in pixels.

    Raises:
        InputError: it is none of these, of another size, or its runs do not fill the picture; says which, not where.
    """
    if isinstance(segmentation, dict):
        return _from_rle(segmentation, height, width)
    if isinstance(segmentation, list):
        return _from_polygons(segmentation, height, width)
    raise InputError(f"a mask is RLE or a list of polygons, found {type(segmentation).__name__}")


def decode(segmentation: Segmentation) -> NDArray[np.bool_]:
    """(H, W) the pixels of a mask; the runs are trusted, as `normalise` checked them."""
    pixels: NDArray[np.uint8] = coco_mask.decode(segmentation)
    return pixels.view(np.bool_)


def run_lengths(counts: str) -> IntArray:
    """(r,) lengths of the runs of 0, 1, 0, ... column after column that compressed `counts` stand for.

    Raises:
        InputError: the string is not of COCO's alphabet, or breaks off.
    """
    try:
        symbols = np.frombuffer(counts.encode("ascii"), np.uint8).astype(np.int64) - ord("0")
    except UnicodeEncodeError as error:
        raise InputError("counts hold a character that compressed RLE does not have") from error
    if not len(symbols):
        return np.zeros(0, np.int64)
    if symbols.min() < 0 or symbols.max() > 0x3F:
        raise InputError("counts hold a character that compressed RLE does not have")
    ends = np.flatnonzero(symbols < 0x20)  # a set sixth bit says that the number goes on
    if not len(ends) or ends[-1] != len(symbols) - 1:
        raise InputError("counts break off inside a number")
    starts = np.concatenate([[0], ends[:-1] + 1])
    places = np.arange(len(symbols)) - np.repeat(starts, ends - starts + 1)
    if places.max() > 7:  # 40 bits: more pixels than any picture
        raise InputError("counts hold a run that is longer than any picture")
    values = np.add.reduceat((symbols & 0x1F) << (5 * places), starts)
    values -= np.where(symbols[ends] & 0x10, 1 << (5 * (places[ends] + 1)), 0)  # two's complement
    # From the fourth run on the difference to the run before last is stored.
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def _from_rle(segmentation: dict[str, Any], height: int, width: int) -> Segmentation:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != [height, width]:
        raise InputError(f"a mask of size {size} in a video of [{height}, {width}] (height, width)")
    if isinstance(counts, str):
        _check_runs(run_lengths(counts), height * width)
        return {"size": [height, width], "counts": counts}
    if isinstance(counts, list) and all(type(count) is int for count in counts):
        _check_runs(np.array(counts, np.int64), height * width)
        return _text(coco_mask.frPyObjects({"size": size, "counts": counts}, height, width))
    raise InputError("RLE counts are a string or a list of whole numbers")


def _check_runs(lengths: IntArray, num_pixels: int) -> None:
    # pycocotools writes past the end of the picture where runs are too long.
    if len(lengths) and lengths.min() < 0 or lengths.sum() != num_pixels:
        raise InputError(f"the runs of a mask cover {lengths.sum()} pixels, the picture has {num_pixels}")


def _from_polygons(polygons: list[Any], height: int, width: int) -> Segmentation:
    if not polygons:
        raise InputError("a mask without polygons; write null where an object is not visible")
    for polygon in polygons:
        if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
            raise InputError("a polygon is a list of three or more x, y pairs")
        if not all(type(side) in (int, float) and abs(side) < 1e6 for side in polygon):  # NaN fails the comparison
            raise InputError("a polygon's corners are numbers, in pixels")
    return _text(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width)))


def _text(encoded: dict[str, Any]) -> Segmentation:
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}
