"""One clip: who is in it, how they move, and the frames with the visible part of every object."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .arrays import Floats, Image
from .background import draw_background, draw_pillar, paste
from .motion import Camera, Path, draw_path
from .outlines import CLASSES, class_outline
from .splits import Split, Style
from .sprites import Pose, Sprite, bounds, coverage, make_sprite
from .textures import muted, random_palette

SIZE = (360, 640)  # (height, width) of a frame in pixels
SUBFRAMES = 4  # pictures that a long exposure averages
LONG_EXPOSURE = (0.5, 0.95)  # share of the time between two frames
BURST_EXPOSURE = (1.5, 3.0)  # of a blurred burst, in frames
BURST_FRAMES = (3, 6)


@dataclass(frozen=True)
class ClipFrame:
    """A frame and its truth."""

    image: Image  # (H, W, 3) BGR
    masks: NDArray[np.bool_]  # (n, H, W) visible pixels of each object; none is in two masks


@dataclass(frozen=True)
class Light:
    """Changes of the picture as a whole."""

    contrast: float
    flicker: tuple[float, float, float]  # amplitude, frequency, phase
    tint: Floats  # (3,) amplitude of colour drift
    vignette: Floats  # (H, W, 1) factor
    noise: float  # standard deviation

    def apply(self, picture: Floats, time: float, rng: np.random.Generator) -> Image:
        """(H, W, 3) -> 8 bits."""
        amplitude, frequency, phase = self.flicker
        gain = 1 + amplitude * np.sin(frequency * time + phase) + self.tint * np.sin(0.11 * time + phase)
        lit = ((picture - 118) * self.contrast + 118) * (self.vignette * gain.astype(np.float32))
        height, width = picture.shape[:2]
        grain = rng.standard_normal((height, width, 1), np.float32) * np.float32(self.noise)
        return np.clip(lit + grain + 0.5, 0, 255).astype(np.uint8)


class Clip:
    """A clip of a split, ready to be rendered.

    Args:
        split: it belongs to.
        index: its number; with the split's seed it decides everything.
        size: (height, width) in pixels.
        num_frames: None takes the split's.
    """

    def __init__(self, split: Split, index: int, size: tuple[int, int] = SIZE, num_frames: int | None = None) -> None:
        self.name = f"{split.name}_{index:04d}"
        self.size = size
        self.num_frames = split.num_frames if num_frames is None else num_frames
        self._seed = (split.seed, index)
        rng = np.random.default_rng([*self._seed, 0])
        self.style = style = split.styles[index % len(split.styles)]
        self._objects, self._paths, self.class_ids = _draw_objects(rng, style, size, self.num_frames)
        self._background = draw_background(rng, style, size)
        self._camera = _draw_camera(rng, style, size, self._background)
        self._pillars = [(*draw_pillar(rng, size), float(rng.uniform(0.15, 0.85)) * size[1])
                         for _ in range(rng.integers(style.pillars[0], style.pillars[1] + 1))]
        self._exposures = _draw_exposures(rng, style, self.num_frames)
        self._light = _draw_light(rng, style, size)

    def __iter__(self) -> Iterator[ClipFrame]:
        """The frames, the same ones every time."""
        rng = np.random.default_rng([*self._seed, 1])
        for time, exposure in enumerate(self._exposures):
            moments = [float(time)] if exposure == 0 else (
                time + exposure * (np.arange(SUBFRAMES) / (SUBFRAMES - 1) - 0.5)).tolist()
            picture = sum((self._picture(moment) for moment in moments),
                          np.zeros((*self.size, 3), np.float32)) / np.float32(len(moments))
            yield ClipFrame(self._light.apply(picture, time, rng), self._masks(time))

    def _poses(self, time: float) -> list[Pose]:
        return [path.at(time) for path in self._paths]

    def _pillar_poses(self, time: float) -> list[Pose]:
        moved = self._camera.at(time)[0] - self._camera.at(0)[0]  # pillars stand before the same piece of background
        return [Pose(x - moved, self.size[0] / 2, height, 0.0) for _, height, x in self._pillars]

    def _layers(self, time: float) -> list[tuple[Sprite, Pose]]:
        """Everything before the background, from the back to the front."""
        pillars = [sprite for sprite, _, _ in self._pillars]
        return [*zip(self._objects, self._poses(time), strict=True),
                *zip(pillars, self._pillar_poses(time), strict=True)]

    def _picture(self, time: float) -> Floats:
        x, y = (round(side) for side in self._camera.at(time))
        picture = self._background[y:y + self.size[0], x:x + self.size[1]].copy()
        for sprite, pose in self._layers(time):
            paste(picture, sprite, pose)
        return picture

    def _masks(self, time: float) -> NDArray[np.bool_]:
        masks = np.zeros((len(self._objects), *self.size), np.bool_)
        for layer, (sprite, pose) in enumerate(self._layers(time)):
            vertices = pose.place(sprite.outline)
            rect = bounds(vertices, *self.size)
            if rect is None:
                continue
            inside = coverage(vertices, rect) >= 128
            masks[:layer, rect.y1:rect.y2, rect.x1:rect.x2] &= ~inside
            if layer < len(masks):
                masks[(layer, *rect.slices)] = inside
        return masks


def _draw_objects(rng: np.random.Generator, style: Style, size: tuple[int, int], num_frames: int
                  ) -> tuple[list[Sprite], list[Path], list[int]]:
    sprites: list[Sprite] = []
    paths: list[Path] = []
    class_ids: list[int] = []
    for _ in range(rng.integers(style.objects[0], style.objects[1] + 1)):
        path = draw_path(rng, style, size, num_frames, paths)
        if sprites and rng.random() < style.twins:
            twin = int(rng.integers(len(sprites)))
            sprites.append(sprites[twin])
            class_ids.append(class_ids[twin])
        else:
            class_ids.append(int(rng.integers(len(CLASSES))) + 1)
            colors = muted(random_palette(rng), float(rng.uniform(*style.muted)))
            sprites.append(make_sprite(class_outline(CLASSES[class_ids[-1] - 1], rng), colors, path.side, rng))
        paths.append(path)
    return sprites, paths, class_ids


def _draw_camera(rng: np.random.Generator, style: Style, size: tuple[int, int], background: Floats) -> Camera:
    limits = float(background.shape[1] - size[1]), float(background.shape[0] - size[0])
    speed = rng.uniform(-style.pan, style.pan) * size[1]
    return Camera((float(rng.uniform(0, limits[0])), float(rng.uniform(0, limits[1]))),
                  (float(speed), float(speed * rng.uniform(-0.3, 0.3))), limits)


def _draw_exposures(rng: np.random.Generator, style: Style, num_frames: int) -> list[float]:
    """Exposure of each frame, in frames; 0 is an instant."""
    base = float(rng.uniform(*LONG_EXPOSURE)) if rng.random() < style.shutter else 0.0
    exposures = [base] * num_frames
    if rng.random() < style.burst:
        length, start = int(rng.integers(BURST_FRAMES[0], BURST_FRAMES[1] + 1)), int(rng.integers(1, num_frames))
        burst = float(rng.uniform(*BURST_EXPOSURE))
        exposures[start:start + length] = [burst] * len(exposures[start:start + length])
    return exposures


def _draw_light(rng: np.random.Generator, style: Style, size: tuple[int, int]) -> Light:
    height, width = size
    y, x = np.linspace(-1, 1, height)[:, None, None], np.linspace(-1, 1, width)[None, :, None]
    vignette = 1 - rng.uniform(0, 0.25) * (x * x + y * y) / 2
    amplitude = float(rng.uniform(*style.flicker))
    return Light(float(rng.uniform(*style.contrast)),
                 (amplitude, float(rng.uniform(0.1, 1.2)), float(rng.uniform(0, 6))),
                 (amplitude / 2 * rng.uniform(-1, 1, 3)).astype(np.float32), vignette.astype(np.float32),
                 float(rng.uniform(*style.noise)))
