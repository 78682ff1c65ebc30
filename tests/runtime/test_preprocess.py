"""The frame graph's input."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stmask_deploy.config import ModelConfig
from stmask_deploy.errors import InputError
from stmask_deploy.runtime.preprocess import check_image, preprocess

MODEL = ModelConfig(class_names=("cat",), input_size=(40, 64))


def bilinear(image: np.ndarray[Any, Any], size: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Half-pixel bilinear resize, pixel by pixel in floating point."""
    (height, width), (h0, w0) = size, image.shape[:2]
    out = np.zeros((height, width, 3))
    for y in range(height):
        for x in range(width):
            fy = min(max((y + 0.5) * h0 / height - 0.5, 0), h0 - 1)
            fx = min(max((x + 0.5) * w0 / width - 0.5, 0), w0 - 1)
            y0, x0 = int(fy), int(fx)
            y1, x1 = min(y0 + 1, h0 - 1), min(x0 + 1, w0 - 1)
            top = image[y0, x0] * (1 - (fx - x0)) + image[y0, x1] * (fx - x0)
            bottom = image[y1, x0] * (1 - (fx - x0)) + image[y1, x1] * (fx - x0)
            out[y, x] = top * (1 - (fy - y0)) + bottom * (fy - y0)
    return out


@pytest.mark.parametrize("size", [(90, 160), (40, 64), (17, 31), (1, 1), (200, 3)])
def test_resize_is_half_pixel_bilinear_on_uint8(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    prepared, geometry = preprocess(image, MODEL)
    assert (prepared.shape, prepared.dtype) == ((1, 40, 64, 3), np.uint8)
    assert prepared.flags.c_contiguous
    # Fixed-point weights have 11 bits: the result is a rounded one, at most one step from the exact value.
    assert np.abs(prepared[0] - bilinear(image, (40, 64))).max() <= 1.0
    assert (geometry.original_hw, geometry.resized_hw, geometry.padded_hw) == (size, (40, 64), (64, 64))


def test_a_picture_of_the_networks_size_is_unchanged() -> None:
    image = np.random.default_rng(1).integers(0, 256, (40, 64, 3), np.uint8)
    assert np.array_equal(preprocess(image, MODEL)[0][0], image)


def test_pictures_need_not_be_contiguous() -> None:
    image = np.random.default_rng(2).integers(0, 256, (90, 160, 3), np.uint8)
    mirrored = image[:, ::-1]
    assert np.array_equal(preprocess(mirrored, MODEL)[0], preprocess(mirrored.copy(), MODEL)[0])


@pytest.mark.parametrize(("image", "told"), [
    (np.zeros((4, 4), np.uint8), r"got \(4, 4\) uint8"),
    (np.zeros((4, 4, 4), np.uint8), r"\(4, 4, 4\)"),
    (np.zeros((4, 4, 3), np.float32), "float32"),
    (np.zeros((0, 4, 3), np.uint8), r"\(0, 4, 3\)"),
    (None, "NoneType"),
    ([[1, 2, 3]], "list"),
])
def test_other_things_than_pictures_are_refused(image: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        check_image(image)
