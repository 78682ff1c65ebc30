"""Preprocessing of a picture into the frame graph's input."""
from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from stmask_deploy.config import ModelConfig
from stmask_deploy.errors import InputError
from stmask_deploy.geometry import FrameGeometry


def check_image(image: Any) -> NDArray[np.uint8]:
    """Return `image` if it is an (H, W, 3) uint8 array with at least one pixel.

    Raises:
        InputError: it is not.
    """
    if not isinstance(image, np.ndarray):
        raise InputError(f"a frame must be a NumPy array (H, W, 3) of uint8, BGR; got {type(image).__name__}")
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise InputError(f"a frame must be (H, W, 3) uint8, BGR, with H, W >= 1; got {image.shape} {image.dtype}")
    return image


def preprocess(image: NDArray[np.uint8], model: ModelConfig) -> tuple[NDArray[np.uint8], FrameGeometry]:
    """Resize a picture to the network's input size, without keeping its aspect ratio.

    Args:
        image: (H, W, 3) uint8 BGR, any size.
        model: the network's configuration.

    Returns:
        (1, h, w, 3) uint8 BGR, contiguous, and the geometry that maps the network's frame to the picture.
    """
    height, width = model.input_size
    # Fixed-point bilinear on uint8, as in training: a float resize changes scores by more than the tolerance.
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(resized, np.uint8)[None], geometry_of(image, model)


def geometry_of(image: NDArray[np.uint8], model: ModelConfig) -> FrameGeometry:
    """The geometry that maps the network's frame to a picture, (H, W, 3)."""
    return FrameGeometry(original_hw=(image.shape[0], image.shape[1]), resized_hw=model.input_size,
                         padded_hw=model.padded_size)
