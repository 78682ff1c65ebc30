"""One colour per identity, derived from the identity alone, so that it is the same in every frame and every run."""
from __future__ import annotations

import math

Color = tuple[int, int, int]  # BGR in [0, 255], OpenCV's order

GOLDEN_SHARE = (math.sqrt(5) - 1) / 2  # hue step, in turns: keeps the hues of consecutive ids far apart
LIGHTNESSES = (0.74, 0.84, 0.66)  # OKLab; distinguishes ids with similar hues, all light enough for black text
CHROMA = 0.17
FIRST_HUE = 0.68  # in turns: blue, which is rare in skin, grass and fur


def identity_color(identity: int) -> Color:
    """A vivid colour (OKLCH, with hues a golden ratio apart)."""
    hue = 2 * math.pi * ((FIRST_HUE + identity * GOLDEN_SHARE) % 1.0)
    return _oklab_to_bgr(LIGHTNESSES[identity % len(LIGHTNESSES)], CHROMA * math.cos(hue), CHROMA * math.sin(hue))


def _oklab_to_bgr(lightness: float, a: float, b: float) -> Color:
    """OKLab (Ottosson 2020) to 8-bit sRGB, clipped to its gamut."""
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    red = 4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short
    green = -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short
    blue = -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short
    return _to_srgb(blue), _to_srgb(green), _to_srgb(red)


def _to_srgb(linear: float) -> int:
    linear = min(max(linear, 0.0), 1.0)
    encoded = 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055
    return round(255 * encoded)
