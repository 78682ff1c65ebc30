"""Backgrounds: textured, cluttered, and larger than the view that pans over them."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .arrays import Floats, Image, Points
from .noise import smooth_noise
from .outlines import clutter_outline
from .sprites import Pose, fill
from .textures import muted, random_palette

_GRAIN = 5.0  # standard deviation of the fine grain, grey levels


@dataclass(frozen=True)
class Backdrop:
    """A picture large enough for the view at every position that it was made for."""

    picture: Image  # (h, w, 3) BGR
    low: tuple[int, int]  # xy of the picture's top-left corner, in pixels relative to the view at position 0

    def view(self, position: Points, height: int, width: int) -> Image:
        """(height, width, 3) BGR at a position, (2,) xy in pixels."""
        x, y = position - self.low
        return np.asarray(cv2.warpAffine(self.picture, np.array([[1, 0, x], [0, 1, y]], np.float64), (width, height),
                                         flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                                         borderMode=cv2.BORDER_REPLICATE), np.uint8)


def make_backdrop(rng: np.random.Generator, positions: Sequence[Points], height: int, width: int,
                  clutter: int) -> Backdrop:
    """A random background.

    Args:
        rng: source of all randomness.
        positions: (2,) xy in pixels of the views to cover.
        height, width: of the view.
        clutter: number of shapes without a class lying on it.
    """
    low = np.floor(np.min(positions, axis=0)).astype(int) - 2
    high = np.ceil(np.max(positions, axis=0)).astype(int) + 2
    full_width, full_height = (high - low + [width, height]).tolist()
    colors = muted(random_palette(rng), rng.uniform(0.15, 0.6))
    ground = _ground(rng, full_height, full_width, height, colors)
    picture = np.clip(ground + 0.5, 0, 255).astype(np.uint8)
    for _ in range(clutter):
        _add_clutter(picture, rng, height, colors)
    return Backdrop(picture, (int(low[0]), int(low[1])))


def _ground(rng: np.random.Generator, height: int, width: int, unit: int, colors: Floats) -> Floats:
    """(height, width, 3): two colours mixed by noise, a gradient, bands or a ridge; `unit` sets the scale."""
    noise = cv2.resize(smooth_noise(rng, (height + 1) // 2, (width + 1) // 2), (width, height),
                       interpolation=cv2.INTER_LINEAR)
    y, x = np.arange(height, dtype=np.float32)[:, None] / unit, np.arange(width, dtype=np.float32)[None] / unit
    turn, bands = rng.uniform(0, np.pi), rng.uniform(8, 40)
    along = np.float32(np.cos(turn)) * x + np.float32(np.sin(turn)) * y
    wave = noise[:, :, 0]
    kind = rng.integers(4)
    if kind == 0:  # clouds
        field = 1.2 * wave
    elif kind == 1:  # a gradient
        field = 1.2 * (along - along.mean()) + 0.5 * wave
    elif kind == 2:  # bands
        field = 1.5 * np.sin(np.float32(bands) * along + wave)
    else:  # a ridge
        field = 25 * (y - 0.5 + 0.15 * wave[:1])
    share = (0.5 + 0.5 * np.tanh(field))[:, :, None]
    grain = rng.normal(0, _GRAIN, (height, width)).astype(np.float32)
    texture = noise * np.float32(rng.uniform(10, 40)) + grain[:, :, None]
    return np.asarray(colors[0] * share + colors[1] * (1 - share) + texture, np.float32)


def _add_clutter(picture: Image, rng: np.random.Generator, unit: int, colors: Floats) -> None:
    """Paint one shape without a class: filled or hollow, and partly transparent."""
    height, width = picture.shape[:2]
    pose = Pose(rng.uniform(0, width), rng.uniform(0, height), rng.uniform(0.05, 0.4) * unit,
                rng.uniform(0, 2 * np.pi))
    mask = np.zeros((height, width), np.uint8)
    outline = clutter_outline(rng)
    fill(mask, pose.place(outline))
    if rng.random() < 0.25:
        fill(mask, pose.place(outline * rng.uniform(0.6, 0.85)), 0)
    left, top, box_width, box_height = cv2.boundingRect(mask)
    if not box_width:
        return  # happens at the smallest sizes, where a shape falls between pixels or is hollow up to its edge
    region = np.s_[top:top + box_height, left:left + box_width]
    alpha = cv2.blur(mask[region], (3, 3))[:, :, None].astype(np.float32) / 255 * np.float32(rng.uniform(0.4, 1))
    color = colors[rng.integers(len(colors))] * rng.uniform(0.7, 1.2)
    below = picture[region].astype(np.float32)
    texture = np.float32(0.3) * (below - below.mean(axis=(0, 1)))
    picture[region] = np.clip(below + (color + texture - below) * alpha + 0.5, 0, 255).astype(np.uint8)
