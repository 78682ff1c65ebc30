"""Generated clips: textured things that move, rotate, grow, occlude each other, leave and return in a panning view.

They stand in for real footage where none can be shipped: in the demo, the check of a fresh export and the tests.
"""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from .noise import smooth_noise

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]

SPRITE_SIZE = 320  # side of a thing in pixels, before it is scaled into the frame
MARGIN = 0.25  # how far outside the frame a thing wraps round, as a fraction of the frame width
NOISE_LEVEL = 2.5  # standard deviation of the camera noise, grey levels
NOISE_SHIFTS = 64  # offsets per axis at which the same noise is laid over a frame


@dataclass(frozen=True)
class _Thing:
    """One moving object. Lengths are fractions of the frame's height; times are in frames."""

    sprite: Floats  # (S, S, 4) BGR in [0, 255] premultiplied by alpha, then alpha in [0, 1]
    shadow: Floats  # (S, S) in [0, 1]
    start: tuple[float, float]  # of its centre, as fractions of the travelled width and of the height
    speed: float  # fraction of the travelled width per frame, positive to the right
    bob: tuple[float, float]  # amplitude and frequency of the vertical motion
    size: float
    growth: tuple[float, float]  # relative amplitude and frequency
    spin: float  # degrees per frame

    def matrix(self, time: int, height: int, width: int) -> NDArray[np.float64]:
        """(2, 3) affine map from sprite to frame pixels."""
        travelled = (self.start[0] + self.speed * time) % 1.0
        x = (travelled * (1 + 2 * MARGIN) - MARGIN) * width
        y = (self.start[1] + self.bob[0] * np.sin(self.bob[1] * time)) * height
        size = self.size * height * (1 + self.growth[0] * np.sin(self.growth[1] * time + self.start[0] * 6))
        half = SPRITE_SIZE / 2
        matrix = np.asarray(cv2.getRotationMatrix2D((half, half), self.spin * time, size / SPRITE_SIZE), np.float64)
        matrix[:, 2] += np.array([x - half, y - half])
        return matrix


def render_clip(num_frames: int, size: tuple[int, int] = (360, 640), seed: int = 0, num_objects: int = 5
                ) -> Iterator[Image]:
    """Frames of a generated clip. Equal arguments give equal pixels; a shorter clip is a prefix of a longer one.

    Args:
        num_frames: number of frames.
        size: (height, width) in pixels.
        seed: seed of all randomness.
        num_objects: number of things; some may be out of view.

    Yields:
        (height, width, 3) uint8 BGR.
    """
    height, width = size
    rng = np.random.default_rng(seed)
    view = _background(rng, height, 2 * width)
    things = [_make_thing(rng, index) for index in range(num_objects)]
    noise = rng.normal(0, NOISE_LEVEL, (height + NOISE_SHIFTS, width + NOISE_SHIFTS, 1)).astype(np.float32)
    for time in range(num_frames):
        left = round((0.5 + 0.5 * np.sin(0.012 * time)) * width)
        frame = view[:, left:left + width].copy()
        for thing in things:
            _paint(frame, thing, time)
        y, x = rng.integers(0, NOISE_SHIFTS, 2)
        frame += noise[y:y + height, x:x + width]
        yield np.clip(frame + 0.5, 0, 255).astype(np.uint8)


def _paint(frame: Floats, thing: _Thing, time: int) -> None:
    """Blend a thing and its soft shadow into (H, W, 3), touching only its bounding rectangle."""
    height, width = frame.shape[:2]
    matrix = thing.matrix(time, height, width)
    center = matrix @ [SPRITE_SIZE / 2, SPRITE_SIZE / 2, 1]
    reach = np.hypot(*matrix[0, :2]) * SPRITE_SIZE * 0.75
    x1, y1 = np.clip(np.floor(center - reach), 0, [width, height]).astype(int).tolist()
    x2, y2 = np.clip(np.ceil(center + reach), 0, [width, height]).astype(int).tolist()
    if x1 >= x2 or y1 >= y2:
        return
    matrix[:, 2] -= [x1, y1]
    region = frame[y1:y2, x1:x2]
    layer = cv2.warpAffine(thing.sprite, matrix, (x2 - x1, y2 - y1))
    matrix[:, 2] += reach * 0.08
    shadow = cv2.warpAffine(thing.shadow, matrix, (x2 - x1, y2 - y1))
    region *= ((1 - shadow) * (1 - layer[:, :, 3]))[:, :, None]
    region += layer[:, :, :3]


def _make_thing(rng: np.random.Generator, index: int) -> _Thing:
    direction = 1 if index % 2 else -1
    sprite = _sprite(rng, index)
    shadow = 0.5 * cv2.GaussianBlur(sprite[:, :, 3], (0, 0), SPRITE_SIZE * 0.03)
    return _Thing(sprite=sprite, shadow=np.asarray(shadow, np.float32),
                  start=(rng.uniform(0.2, 0.8), rng.uniform(0.25, 0.8)),
                  speed=direction * rng.uniform(0.001, 0.004), bob=(rng.uniform(0.02, 0.1), rng.uniform(0.03, 0.1)),
                  size=rng.uniform(0.25, 0.6), growth=(rng.uniform(0.05, 0.3), rng.uniform(0.02, 0.06)),
                  spin=rng.uniform(-1.5, 1.5))


def _sprite(rng: np.random.Generator, index: int) -> Floats:
    """(S, S, 4) premultiplied BGRA: a disc, box, star or blob in stripes, dots, checks or marble, lit from above."""
    y, x = (np.mgrid[:SPRITE_SIZE, :SPRITE_SIZE] / (SPRITE_SIZE / 2) - 1).astype(np.float32)
    angle, radius = np.arctan2(y, x), np.hypot(x, y)
    phase = rng.uniform(0, 6)
    edges = [0.8, 0.72 * (np.abs(np.cos(angle)) ** 6 + np.abs(0.8 * np.sin(angle)) ** 6) ** (-1 / 6),
             0.62 + 0.2 * np.cos(5 * angle), 0.62 + 0.12 * np.sin(3 * angle + phase) + 0.06 * np.sin(5 * angle)]
    alpha = np.clip((edges[index % 4] - radius) * SPRITE_SIZE / 3, 0, 1)
    marble = smooth_noise(rng, SPRITE_SIZE, SPRITE_SIZE)
    bands = rng.uniform(9, 16)
    stripes = np.sin(bands * (x + 0.3 * marble[:, :, 0]))
    checks = np.sin(bands * x) * np.sin(bands * y)
    dots = np.cos(bands * x + phase) + np.cos(bands * y) - 0.7
    cover = [stripes, checks, marble.sum(axis=2) * 0.7, dots][(index + index // 4) % 4]
    share = 0.5 + 0.5 * np.tanh(4 * cover)[:, :, None]
    colors = np.array([rng.uniform(20, 150, 3), rng.uniform(120, 250, 3)])
    colors = 0.75 * colors + 0.25 * colors.mean(axis=1, keepdims=True)
    paint = colors[0] * share + colors[1] * (1 - share) + 18 * marble
    light = np.clip(1.08 - 0.3 * y - 0.35 * radius ** 2, 0.25, 1.3)[:, :, None]
    paint = np.clip(paint * light, 0, 255) * alpha[:, :, None]
    return np.concatenate([paint, alpha[:, :, None]], axis=2).astype(np.float32)


def _background(rng: np.random.Generator, height: int, width: int) -> Floats:
    """(height, width, 3): a hazy sky above textured ground."""
    texture = smooth_noise(rng, height, width)
    ridge = 0.38 + 0.05 * np.sin(np.linspace(0, 9, width) + rng.uniform(0, 6)) + 0.08 * texture[0, :, 0]
    y = np.linspace(0, 1, height)[:, None]
    ground = 0.5 + 0.5 * np.tanh(45 * (y - ridge[None]))[:, :, None]
    sky = np.array([215, 190, 160]) - 60 * (1 - y[:, :, None]) + 14 * texture
    soil = np.array([70, 105, 95]) + rng.uniform(-30, 30, 3) + 55 * y[:, :, None] + 42 * texture
    return np.asarray(sky * (1 - ground) + soil * ground, np.float32)
