"""What lies behind the objects, larger than the view, and what stands before them."""
from __future__ import annotations

import numpy as np

from ..noise import smooth_noise
from .arrays import Floats
from .outlines import box_outline, clutter_outline
from .splits import Style
from .sprites import Pose, Sprite, bounds, coverage, make_sprite
from .textures import TEXTURES, muted, paint, random_palette

EXTENT = (1.25, 2.0)  # height and width of the background, shares of the frame's


def draw_background(rng: np.random.Generator, style: Style, size: tuple[int, int]) -> Floats:
    """(H, W, 3) BGR in [0, 255], larger than a frame of `size` by EXTENT: a texture with clutter of no class on it."""
    height, width = (round(side * extent) for side, extent in zip(size, EXTENT, strict=True))
    colors = muted(random_palette(rng), float(rng.uniform(0.35, 0.75)))
    ground = paint(TEXTURES[rng.integers(len(TEXTURES))], rng, height, width, colors)
    ground = ground + 14 * smooth_noise(rng, height, width)
    for _ in range(rng.integers(style.clutter[0], style.clutter[1] + 1)):
        side = float(rng.uniform(0.08, 0.4) * size[0])
        thing = make_sprite(clutter_outline(rng), muted(random_palette(rng), float(rng.uniform(0.0, 0.6))), side, rng)
        paste(ground, thing, Pose(float(rng.uniform(0, width)), float(rng.uniform(0, height)), side,
                                  float(rng.uniform(0, 2 * np.pi))))
    return np.clip(ground, 0, 255)


def draw_pillar(rng: np.random.Generator, size: tuple[int, int]) -> tuple[Sprite, float]:
    """Something upright and higher than the frame that objects pass behind, and its height in pixels."""
    height = 1.6 * size[0]
    sprite = make_sprite(box_outline(float(rng.uniform(0.1, 0.17))), muted(random_palette(rng), 0.4), height, rng)
    return sprite, height


def paste(canvas: Floats, sprite: Sprite, pose: Pose) -> None:
    """Draw a sprite onto (H, W, 3), where it is inside."""
    vertices = pose.place(sprite.outline)
    rect = bounds(vertices, *canvas.shape[:2])
    if rect is not None:
        region = canvas[rect.slices]
        alpha = coverage(vertices, rect)[:, :, None] * np.float32(1 / 255)
        region += (sprite.warp(pose, rect) - region) * alpha
