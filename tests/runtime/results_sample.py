"""`FrameResult`s with smooth, rounded masks, for the tests of what is made of results."""
from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stmask_deploy.geometry import FrameGeometry
from stmask_deploy.runtime.result import FrameResult

CLASS_NAMES = ("person", "giant_panda", "lizard")
MASK_HW = (96, 160)  # of a 384x640 network frame whose lower 24 rows are padding
Disc = tuple[float, float, float]  # centre x, y and radius: shares of the frame's width, height and height


def frame_result(discs: Sequence[Disc] = ((0.3, 0.4, 0.2), (0.7, 0.6, 0.15)), size: tuple[int, int] = (360, 640), *,
                 index: int = 0, ids: Sequence[int] | None = None, ages: Sequence[int] | None = None,
                 scores: Sequence[float] | None = None, class_ids: Sequence[int] | None = None) -> FrameResult:
    """One instance a disc; a radius of 0 gives an empty mask with a box of a tenth of the frame."""
    count = len(discs)
    height, width = size
    y, x = np.mgrid[:MASK_HW[0], :MASK_HW[1]].astype(np.float32)
    masks = np.zeros((count, *MASK_HW), np.float32)
    boxes = np.zeros((count, 4), np.float32)
    for row, (cx, cy, radius) in enumerate(discs):
        distance = np.hypot(x - cx * 160, y - cy * 90)
        masks[row] = 1 / (1 + np.exp(np.clip(distance - radius * 90, -30, 30))) if radius else 0
        reach = (radius * 90 / 160 or 0.05, radius or 0.05)
        corners = np.clip([cx - reach[0], cy - reach[1], cx + reach[0], cy + reach[1]], 0, 1)
        boxes[row] = corners * [width, height, width, height]
    return FrameResult(
        index=index, time_s=index / 30, geometry=FrameGeometry(size, (360, 640), (384, 640)), class_names=CLASS_NAMES,
        ids=np.array(range(count) if ids is None else ids, np.int64),
        class_ids=np.array([1 + row % 3 for row in range(count)] if class_ids is None else class_ids, np.int64),
        scores=np.array([0.9 - 0.1 * row for row in range(count)] if scores is None else scores, np.float32),
        boxes_px=boxes, ages=np.array([0] * count if ages is None else ages, np.int64), soft_masks=masks)
