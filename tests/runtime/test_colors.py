from __future__ import annotations

import cv2
import numpy as np
import pytest

from stmask_deploy.runtime.colors import _oklab_to_bgr, identity_color
from stmask_deploy.runtime.label_plates import INK


def luminance(bgr: tuple[int, int, int]) -> float:
    """Relative luminance of WCAG 2."""
    shares = [value / 255 for value in bgr]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.0722 * linear[0] + 0.7152 * linear[1] + 0.2126 * linear[2]


def lab(bgr: tuple[int, int, int]) -> np.ndarray:
    return cv2.cvtColor(np.array([[bgr]], np.float32) / 255, cv2.COLOR_BGR2LAB)[0, 0]


@pytest.mark.parametrize(("lightness", "a", "b", "bgr"), [
    (1.0, 0.0, 0.0, (255, 255, 255)),
    (0.0, 0.0, 0.0, (0, 0, 0)),
    (0.62796, 0.22486, 0.12585, (0, 0, 255)),  # OKLab of the sRGB primaries
    (0.86644, -0.23389, 0.17950, (0, 255, 0)),
    (0.45201, -0.03246, -0.31153, (255, 0, 0)),
])
def test_known_colors(lightness: float, a: float, b: float, bgr: tuple[int, int, int]) -> None:
    assert np.abs(np.array(_oklab_to_bgr(lightness, a, b)) - bgr).max() <= 1


def test_colors_of_neighbouring_ids_are_far_apart() -> None:
    colors = [lab(identity_color(identity)) for identity in range(300)]
    for first in range(290):
        nearest = min(float(np.linalg.norm(colors[first] - other)) for other in colors[first + 1:first + 8])
        assert nearest > 15, first


def test_dark_text_is_legible_on_every_color() -> None:
    for identity in range(1000):
        contrast = (luminance(identity_color(identity)) + 0.05) / (luminance(INK) + 0.05)
        assert contrast > 4.5, identity


def test_large_ids() -> None:
    assert all(0 <= value <= 255 for value in identity_color(10 ** 12))
