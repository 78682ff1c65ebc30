from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from stmask_deploy.runtime.masks import MaskPatch
from stmask_deploy.runtime.rle import encode_patch, run_lengths

Patches = tuple[MaskPatch, tuple[int, int]]


@st.composite
def patches(draw: st.DrawFn) -> Patches:
    """A patch somewhere in a small frame, often touching its borders, often full or empty."""
    height, width = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    y, x = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    h, w = draw(st.integers(1, height - y)), draw(st.integers(1, width - x))
    density = draw(st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]))
    pixels = np.random.default_rng(draw(st.integers(0, 999))).random((h, w)) < density
    return MaskPatch(y, x, pixels), (height, width)


def whole(patch: MaskPatch, frame_hw: tuple[int, int]) -> NDArray[np.uint8]:
    mask = np.zeros(frame_hw, np.uint8, order="F")
    h, w = patch.pixels.shape
    mask[patch.y:patch.y + h, patch.x:patch.x + w] = patch.pixels
    return mask


@settings(max_examples=400)
@given(patches())
@example((MaskPatch(0, 0, np.ones((3, 4), np.bool_)), (3, 4)))  # full
@example((MaskPatch(0, 0, np.zeros((3, 4), np.bool_)), (3, 4)))  # empty
@example((MaskPatch(0, 0, np.zeros((0, 0), np.bool_)), (3, 4)))  # empty patch
@example((MaskPatch(2, 3, np.ones((1, 1), np.bool_)), (3, 4)))  # last pixel
@example((MaskPatch(0, 0, np.ones((1, 1), np.bool_)), (1, 1)))
@example((MaskPatch(0, 1, np.ones((3, 2), np.bool_)), (3, 4)))  # a run over two columns
def test_equals_pycocotools(case: Patches) -> None:
    patch, frame_hw = case
    expected = coco_mask.encode(whole(patch, frame_hw))
    assert encode_patch(patch, frame_hw) == {"size": list(frame_hw), "counts": expected["counts"].decode()}


def test_equals_pycocotools_on_a_large_frame() -> None:
    y, x = np.mgrid[:300, :400]
    patch = MaskPatch(401, 700, (y - 150) ** 2 + (x - 200) ** 2 // 2 < 130 ** 2 + 900 * np.sin(x / 5))
    expected = coco_mask.encode(whole(patch, (1080, 1920)))
    assert encode_patch(patch, (1080, 1920))["counts"] == expected["counts"].decode()


@pytest.mark.parametrize("y, x, pixels, lengths", [
    (0, 0, [[1, 1], [1, 1]], [0, 4, 2]),  # starts with a run of no zeros; two columns are one run
    (0, 1, [[1], [0]], [2, 1, 3]),
    (1, 2, [[1]], [5, 1]),  # ends with ones: no trailing zeros
    (0, 0, [[0]], [6]),
])
def test_run_lengths(y: int, x: int, pixels: list[list[int]], lengths: list[int]) -> None:
    assert run_lengths(MaskPatch(y, x, np.array(pixels, np.bool_)), 2, 6).tolist() == lengths
