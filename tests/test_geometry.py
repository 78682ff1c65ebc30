"""Boxes, anchors and frames of reference, against hand-made values and slow definitions."""
from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stmask_deploy.geometry import (
    FrameGeometry,
    box_iou,
    cxcywh_to_xyxy,
    decode_boxes,
    make_anchors,
    xyxy_to_cxcywh,
)


def array(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32).reshape(len(rows), 4)


EMPTY = np.zeros((0, 4), np.float32)


def test_boxes_to_px() -> None:
    # 480x960 shown at 360x640 in a frame padded to 384x640: a fraction of 1 is 1 / (360 / 384) of the height.
    geometry = FrameGeometry((480, 960), (360, 640), (384, 640))
    boxes = geometry.boxes_to_px(array([0, 0, 1, 360 / 384], [0.25, 0.1, 0.5, 0.2], [-1, -1, 2, 2],
                                       [0.5, 0.95, 0.6, 1]))
    np.testing.assert_allclose(boxes, array([0, 0, 960, 480], [240, 51.2, 480, 102.4], [0, 0, 960, 480],
                                            [480, 480, 576, 480]), rtol=1e-6)
    assert boxes.dtype == np.float32 and geometry.boxes_to_px(EMPTY).shape == (0, 4)


def test_centre_and_corners() -> None:
    corners = array([0.1, 0.2, 0.5, 0.8], [0.7, 0.6, 0.2, 0.1])  # the second with swapped corners
    centres = array([0.3, 0.5, 0.4, 0.6], [0.45, 0.35, -0.5, -0.5])
    np.testing.assert_allclose(xyxy_to_cxcywh(corners), centres, rtol=1e-6)
    np.testing.assert_allclose(cxcywh_to_xyxy(xyxy_to_cxcywh(corners)), corners, rtol=1e-6)
    assert cxcywh_to_xyxy(EMPTY).shape == xyxy_to_cxcywh(EMPTY).shape == (0, 4)


def test_decode_by_hand() -> None:
    anchors = array([0.5, 0.4, 0.2, 0.1], [0.5, 0.4, 0.2, 0.1])
    boxes = decode_boxes(array([0, 0, 0, 0], [1, -2, 3, -1]), anchors)
    np.testing.assert_allclose(boxes[0], [0.4, 0.35, 0.6, 0.45], rtol=1e-6)
    cx, cy = 0.5 + 0.1 * 1 * 0.2, 0.4 + 0.1 * -2 * 0.1
    w, h = 0.2 * math.exp(0.6), 0.1 * math.exp(-0.2)
    np.testing.assert_allclose(boxes[1], [cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], rtol=1e-6)
    assert decode_boxes(EMPTY, EMPTY).shape == (0, 4) and boxes.dtype == np.float32


def slow_iou(a: np.ndarray, b: np.ndarray) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = width * height if width > 0 and height > 0 else 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter
    return inter / union if union > 0 else 0.0


def test_iou_table() -> None:
    box = array([0, 0, 2, 2])
    others = array([0, 0, 2, 2], [1, 0, 3, 2], [2, 0, 4, 2], [0.5, 0.5, 1.5, 1.5], [1, 1, 1, 1], [5, 5, 6, 6])
    np.testing.assert_allclose(box_iou(box, others), [[1, 1 / 3, 0, 1 / 4, 0, 0]], rtol=1e-6)
    assert box_iou(array([1, 1, 1, 1]), array([1, 1, 1, 1])).tolist() == [[0]]  # no area, not 0 / 0
    assert box_iou(EMPTY, others).shape == (0, 6) and box_iou(box, EMPTY).shape == (1, 0)


def test_iou_of_many() -> None:
    rng = np.random.default_rng(0)
    a, b = (np.sort(rng.random((count, 2, 2)), axis=1).reshape(-1, 4).astype(np.float32) for count in (20, 30))
    want = [[slow_iou(one, other) for other in b] for one in a]
    np.testing.assert_allclose(box_iou(a, b), want, rtol=0, atol=1e-5)


def test_anchors_spelled_out() -> None:
    sizes, shapes, scales = [(2, 3), (1, 2)], [(3, 3), (3, 5)], [1.0, 2.0]
    want = [[(x + 0.5) / width, (y + 0.5) / height, shape[1] * scale / width, shape[0] * scale / height]
            for height, width in sizes for y in range(height) for x in range(width)
            for shape in shapes for scale in scales]
    anchors = make_anchors(sizes, shapes, scales)
    np.testing.assert_allclose(anchors, want, rtol=1e-6)
    assert anchors.dtype == np.float32 and anchors.shape == (32, 4)


@given(st.integers(1, 60), st.integers(1, 60))
def test_anchor_centres_lie_in_their_cells(height: int, width: int) -> None:
    anchors = make_anchors([(height, width)], [(3, 3)], [1.0])
    np.testing.assert_allclose(anchors[:, 0] * width % 1, 0.5, atol=1e-4)
    np.testing.assert_allclose(anchors[:, 1] * height % 1, 0.5, atol=1e-4)
    assert anchors[:, :2].min() > 0 and anchors[:, :2].max() < 1


@pytest.mark.parametrize("function", [cxcywh_to_xyxy, xyxy_to_cxcywh])
def test_conversions_keep_their_arguments(function: object) -> None:
    boxes = array([0.1, 0.2, 0.5, 0.8])
    function(boxes)  # type: ignore[operator]
    np.testing.assert_array_equal(boxes, array([0.1, 0.2, 0.5, 0.8]))
