"""Sprites: outlines with a painted surface, drawn into frames at any position, size and angle."""
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .arrays import Floats, Image, Points
from .textures import TEXTURES, paint, shaded

SUPERSAMPLING = 4  # samples per pixel and axis when an outline is drawn
_SHIFT = 6  # fractional bits of the vertices passed to OpenCV, which fills polygons in fixed-point arithmetic
_BLEED = 4  # pixels of surface beyond the outline, for interpolation


@dataclass(frozen=True)
class Rect:
    """A rectangle of pixels: x1 <= x < x2, y1 <= y < y2."""

    x1: int
    y1: int
    x2: int
    y2: int

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.y1, self.y2), slice(self.x1, self.x2)


@dataclass(frozen=True)
class Pose:
    """Where a sprite is drawn, in pixels of the frame (pixel centres are at integers)."""

    x: float
    y: float
    side: float  # length of the outline's longer side
    angle: float  # radians, clockwise

    @property
    def matrix(self) -> Points:
        """(2, 2) map from the outline's units to pixels."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        return np.array([[cos, -sin], [sin, cos]]) * (self.side / 2)

    def place(self, outline: Points) -> Points:
        """(k, 2) vertices in pixels of the frame."""
        return np.asarray(outline @ self.matrix.T + [self.x, self.y], np.float64)


@dataclass(frozen=True)
class Sprite:
    """An outline and its surface; objects that look the same share one."""

    outline: Points  # (k, 2), see outlines.py
    surface: Image  # (h, w, 3) BGR
    scale: float  # pixels of the surface per unit of the outline; both have the same centre

    def warp(self, pose: Pose, rect: Rect) -> Image:
        """(H, W, 3) BGR: the surface placed at `pose`, for all pixels of `rect`, including those beyond the outline."""
        height, width = self.surface.shape[:2]
        linear = pose.matrix / self.scale
        offset = np.array([pose.x - rect.x1, pose.y - rect.y1]) - linear @ [(width - 1) / 2, (height - 1) / 2]
        return np.asarray(cv2.warpAffine(self.surface, np.column_stack([linear, offset]),
                                         (rect.x2 - rect.x1, rect.y2 - rect.y1), flags=cv2.INTER_LINEAR,
                                         borderMode=cv2.BORDER_REPLICATE), np.uint8)


def bounds(vertices: Points, height: int, width: int, margin: float = 0) -> Rect | None:
    """The part of a frame that a polygon and a margin around it may touch; None if there is none."""
    low = np.floor(vertices.min(axis=0) - margin).astype(int)
    high = np.ceil(vertices.max(axis=0) + margin).astype(int) + 1
    x1, y1 = np.maximum(low, 0).tolist()
    x2, y2 = np.minimum(high, [width, height]).tolist()
    return Rect(x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None


def coverage(vertices: Points, rect: Rect) -> Image:
    """(H, W) of `rect`: coverage of each pixel by a polygon, in [0, 255]; from 128 on a pixel belongs to it."""
    height, width = rect.y2 - rect.y1, rect.x2 - rect.x1
    fine = np.zeros((height * SUPERSAMPLING, width * SUPERSAMPLING), np.uint8)
    fill(fine, (vertices - [rect.x1, rect.y1] + 0.5) * SUPERSAMPLING - 0.5)
    return np.asarray(cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def fill(canvas: Image, vertices: Points, value: int = 255) -> None:
    """Fill a polygon, given in pixels, on (H, W), in place."""
    fixed = np.round(vertices * 2 ** _SHIFT).astype(np.int32)
    cv2.fillPoly(canvas, [fixed], value, cv2.LINE_8, _SHIFT)


def make_sprite(outline: Points, colors: Floats, side: float, rng: np.random.Generator) -> Sprite:
    """A sprite with random texture and shading, and in some cases a crisp or soft rim.

    Args:
        outline: (k, 2), see outlines.py.
        colors: (n, 3) BGR, n at least 3: two for the texture, one for the rim.
        side: approximate length in pixels of its longer side in the frames it is meant for.
        rng: source of all other choices.
    """
    scale = max(side, 8) / 2
    width, height = (np.ceil(np.abs(outline).max(axis=0) * scale).astype(int) * 2 + 1 + 2 * _BLEED).tolist()
    inside = np.zeros((height, width), np.uint8)
    fill(inside, outline * scale + [(width - 1) / 2, (height - 1) / 2])
    depth = np.asarray(cv2.distanceTransform(inside, cv2.DIST_L2, 5), np.float32) / np.float32(scale)
    surface = paint(TEXTURES[rng.integers(len(TEXTURES))], rng, height, width, colors)
    surface = shaded(surface, depth, rng.uniform(0.2, 1))
    rim, thickness = rng.integers(4), rng.uniform(0.05, 0.1)
    if rim < 2:  # 0 crisp, 1 soft, otherwise none
        sharpness = scale if rim == 0 else 1.5 / thickness
        alpha = np.clip((thickness - depth) * sharpness + 0.5, 0, 1)[:, :, None]
        surface += (colors[2] * 0.9 - surface) * alpha
    return Sprite(outline, np.clip(surface + 0.5, 0, 255).astype(np.uint8), scale)
