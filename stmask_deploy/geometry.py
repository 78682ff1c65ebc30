"""Boxes, anchors and the coordinate frames of picture and network. NumPy only.

Boxes inside the model are fractions of the *padded* network frame; names ending in `_px` are in pixels of the original
picture.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

CENTER_VARIANCE = 0.1  # scale of d_x, d_y (from SSD, kept by YOLACT and STMask)
SIZE_VARIANCE = 0.2  # scale of d_w, d_h
MAX_SIZE_EXPONENT = 60  # of decoded sizes, so that they do not overflow: an empty box times infinity is not a number


@dataclass(frozen=True)
class FrameGeometry:
    """How an original picture maps to the network's frame; sizes are (height, width) in pixels."""

    original_hw: tuple[int, int]
    resized_hw: tuple[int, int]
    padded_hw: tuple[int, int]

    def boxes_to_px(self, boxes: Array) -> Array:
        """(n, 4) xyxy fractions of the padded frame -> (n, 4) xyxy pixels of the original frame, clipped to it."""
        height, width = self.original_hw
        scale = np.array([width * self.padded_hw[1] / self.resized_hw[1],
                          height * self.padded_hw[0] / self.resized_hw[0]] * 2, np.float64)
        limit = np.array([width, height] * 2, np.float64)
        return np.clip(boxes.astype(np.float64) * scale, 0, limit).astype(np.float32)


def cxcywh_to_xyxy(boxes: Array) -> Array:
    """(n, 4) centre and size -> (n, 4) corners."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def xyxy_to_cxcywh(boxes: Array) -> Array:
    """(n, 4) corners -> (n, 4) centre and size."""
    return np.concatenate([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], axis=1)


def decode_boxes(deltas: Array, anchors: Array) -> Array:
    """Apply box deltas to anchors (paper eq. 2, with the variances above).

    Args:
        deltas: (n, 4) d_x, d_y, d_w, d_h.
        anchors: (n, 4) cxcywh, any unit.

    Returns:
        (n, 4) xyxy in the anchors' unit. Sizes grow to at most e^60 = 1e26 times the anchor's.
    """
    centers = anchors[:, :2] + np.float32(CENTER_VARIANCE) * deltas[:, :2] * anchors[:, 2:]
    sizes = anchors[:, 2:] * np.exp(np.minimum(np.float32(SIZE_VARIANCE) * deltas[:, 2:], MAX_SIZE_EXPONENT))
    return cxcywh_to_xyxy(np.concatenate([centers, sizes], axis=1))


def box_iou(a: Array, b: Array) -> Array:
    """(n, 4) and (m, 4) xyxy -> (n, m) intersection over union; 0 where the union is empty."""
    # Axis by axis: (n, m) arrays are several times faster here than (n, m, 2) ones.
    width, height = (np.maximum(np.minimum(a[:, None, axis + 2], b[None, :, axis + 2])
                                - np.maximum(a[:, None, axis], b[None, :, axis]), 0) for axis in (0, 1))
    inter = width * height
    area_a, area_b = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) for boxes in (a, b))
    union = area_a[:, None] + area_b[None, :] - inter
    iou: Array = np.divide(inter, union, out=np.zeros_like(inter), where=union > 0)
    return iou


def make_anchors(
    sizes: Sequence[tuple[int, int]], shapes: Sequence[tuple[float, float]], scales: Sequence[float]
) -> Array:
    """Anchors of all levels, ordered by level, row, column, kernel, scale.

    Args:
        sizes: (height, width) of each level's map.
        shapes: (height, width) of each kernel's anchor, in cells.
        scales: factors applied to every shape.

    Returns:
        (N, 4) cxcywh, fractions of the padded frame.
    """
    cells = np.array([(shape[1] * scale, shape[0] * scale) for shape in shapes for scale in scales])  # (A, 2) w, h
    levels = []
    for height, width in sizes:
        y, x = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / width, indexing="ij")
        centers = np.stack([x, y], axis=-1)[:, :, None, :]  # (h, w, 1, 2)
        boxes = np.broadcast_to(cells / [width, height], (height, width, len(cells), 2))
        levels.append(np.concatenate([np.broadcast_to(centers, boxes.shape), boxes], axis=-1).reshape(-1, 4))
    return np.concatenate(levels).astype(np.float32)
