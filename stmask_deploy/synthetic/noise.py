"""Smooth random fields, the basis of every generated texture."""
from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def smooth_noise(rng: np.random.Generator, height: int, width: int) -> NDArray[np.float32]:
    """(height, width, 3) smooth, mostly grey noise of about [-1, 1], with grain of several sizes."""
    total = np.zeros((height, width, 3), np.float32)
    for octave in range(2, 8):
        cells = max(2, 2 ** octave * height // max(height, width)), 2 ** octave
        grain = rng.normal(0, 1, (*cells, 1)) + rng.normal(0, 0.35, (*cells, 3))
        total += cv2.resize(grain.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC) * 0.75 ** octave
    return total / np.float32(1.6)
