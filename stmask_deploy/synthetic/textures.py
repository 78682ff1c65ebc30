"""Textures: the appearance of surfaces, regardless of shape."""
from __future__ import annotations

import cv2
import numpy as np

from .arrays import Floats
from .noise import smooth_noise

TEXTURES = ("stripes", "checks", "dots", "marble", "gradient")

_PALETTES = (  # hexadecimal RGB; five matching colours each
    "264653 2a9d8f e9c46a f4a261 e76f51", "f94144 f8961e f9c74f 90be6d 577590", "8ecae6 219ebc 023047 ffb703 fb8500",
    "cdb4db ffc8dd ffafcc bde0fe a2d2ff", "606c38 283618 fefae0 dda15e bc6c25", "003049 d62828 f77f00 fcbf49 eae2b7",
    "5f0f40 9a031e fb8b24 e36414 0f4c5c", "e63946 f1faee a8dadc 457b9d 1d3557", "edede9 d6ccc2 b08968 7f5539 3d2c23",
    "10002b 5a189a 9d4edd c77dff e0aaff", "d9ed92 99d98c 52b69a 168aad 1e6091", "2b2d42 8d99ae edf2f4 ef233c d90429")


def random_palette(rng: np.random.Generator) -> Floats:
    """(5, 3) BGR in [0, 255], in random order, slightly lighter or darker than the listed colours."""
    text = _PALETTES[rng.integers(len(_PALETTES))]
    rgb = np.array([list(bytes.fromhex(color)) for color in text.split()], np.float32)
    return np.asarray(np.clip(rng.permutation(rgb[:, ::-1]) * rng.uniform(0.8, 1.1), 0, 255), np.float32)


def muted(colors: Floats, share: float) -> Floats:
    """Move colours (n, 3) towards a blend of their own grey and mid-grey; `share` 0 keeps them, 1 leaves the blend."""
    grey = 0.6 * colors.mean(axis=1, keepdims=True) + 0.4 * 118
    return np.asarray((1 - share) * colors + share * grey, np.float32)


def paint(kind: str, rng: np.random.Generator, height: int, width: int, colors: Floats) -> Floats:
    """(height, width, 3) BGR in [0, 255]: two of the colours mixed according to `kind`, with a little marbling.

    Args:
        kind: one of `TEXTURES`.
        rng: source of scale, direction and phase.
        height, width: in pixels; the pattern scales with the longer one.
        colors: (n, 3) BGR, n at least 2; the first two are used.
    """
    marble = smooth_noise(rng, height, width)
    half = max(height, width) / 2
    y, x = np.mgrid[:height, :width].astype(np.float32)
    x, y = (x - width / 2) / half, (y - height / 2) / half
    turn = rng.uniform(0, np.pi)
    u = np.cos(turn) * x + np.sin(turn) * y + 0.1 * marble[:, :, 0]
    v = np.cos(turn) * y - np.sin(turn) * x + 0.1 * marble[:, :, 1]
    bands, phase = rng.uniform(7, 15), rng.uniform(0, 6)
    field = {
        "stripes": lambda: 3 * np.sin(bands * u + phase),
        "checks": lambda: 6 * np.sin(bands * u + phase) * np.sin(bands * v),
        "dots": lambda: 4 * (np.cos(bands * u + phase) + np.cos(bands * v) - rng.uniform(0.3, 0.9)),
        "marble": lambda: 2.2 * marble.sum(axis=2) * 0.8,
        "gradient": lambda: 1.4 * u,
    }[kind]()
    share = (0.5 + 0.5 * np.tanh(field))[:, :, None].astype(np.float32)
    mixed = colors[0] * share + colors[1] * (1 - share) + 12 * marble
    return np.asarray(np.clip(mixed, 0, 255), np.float32)


def shaded(surface: Floats, depth: Floats, strength: float) -> Floats:
    """The surface lit from above and shaded towards its edge, so that it looks rounded.

    Args:
        surface: (H, W, 3) BGR in [0, 255].
        depth: (H, W) distance from the edge, as a fraction of half the object's longer side.
        strength: 0 is flat, 1 strongly rounded.
    """
    height = surface.shape[0]
    fall = np.linspace(0.5, -0.5, height, dtype=np.float32)[:, None] * 0.35
    edge = np.clip(depth / 0.3, 0, 1)
    light = 1 + strength * (fall - 0.35 * (1 - edge) ** 2)
    return np.asarray(surface * cv2.merge([light, light, light]), np.float32)
