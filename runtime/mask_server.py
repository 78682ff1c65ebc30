"""The process behind `MaskProcess`: it reads crops of masks and answers with their run-length encodings."""
from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping
from typing import Any, BinaryIO

import numpy as np

from stmask_deploy.geometry import FrameGeometry
from stmask_deploy.types import Array

from .masks import bilinear_axes, upsample_mask
from .rle import encode_patch

READY = b"ready\n"


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer requests until the stream ends.

    A request is a line of JSON with `number`, `geometry` (the fields of a `FrameGeometry`), `mask_hw` and `crops` (a
    list of [y1, y2, x1, x2]), followed by the cells of all crops as float32. An answer is a line of JSON: the number
    and the list of the masks' compressed RLE counts.
    """
    answers.write(READY)
    answers.flush()
    while line := requests.readline():
        request = json.loads(line)
        size = sum((y2 - y1) * (x2 - x1) for y1, y2, x1, x2 in request["crops"])
        cells = np.frombuffer(requests.read(4 * size), np.float32)
        answers.write(json.dumps([request["number"], encode_crops(request, cells)]).encode() + b"\n")
        answers.flush()


def encode_crops(request: Mapping[str, Any], cells: Array) -> list[str]:
    """The compressed RLE counts of each mask; masks are zero outside their crops."""
    geometry = FrameGeometry(*map(tuple, request["geometry"]))
    mask_hw = tuple(request["mask_hw"])
    rows, columns = bilinear_axes(geometry, mask_hw)
    counts, at = [], 0
    for y1, y2, x1, x2 in request["crops"]:
        mask, size = np.zeros(mask_hw, np.float32), (y2 - y1) * (x2 - x1)
        mask[y1:y2, x1:x2] = cells[at:at + size].reshape(y2 - y1, x2 - x1)
        at += size
        counts.append(encode_patch(upsample_mask(mask, rows, columns), geometry.original_hw)["counts"])
    return counts


def main() -> None:
    """Serve the parent process until it closes the pipe or exits."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C
    serve(sys.stdin.buffer, sys.stdout.buffer)


if __name__ == "__main__":
    main()
