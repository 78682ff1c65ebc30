"""How light becomes a picture: exposure time, gain, colour cast, vignette, contrast, noise."""
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .arrays import Floats, Image

NOISE_SHIFTS = 32  # offsets per axis at which the same noise is laid over a frame


@dataclass(frozen=True)
class Sensor:
    """Converts the light of each frame of a clip to its picture."""

    shutters: Floats  # (T,) exposure times as fractions of the frame interval; 0: no motion blur
    gains: Floats  # (T, 3) factor on B, G and R
    vignette: Floats  # (H, W, 3) factor, the same for every colour
    contrast: float
    haze: float  # grey level towards which low contrast compresses all levels
    noise: Floats  # (H + NOISE_SHIFTS, W + NOISE_SHIFTS, 3) grey levels
    shifts: tuple[tuple[int, int], ...]  # (T, 2) yx offsets of the noise crop

    def expose(self, light: Floats, index: int) -> Image:
        """(H, W, 3) uint8 BGR of frame `index`, from its light (H, W, 3), BGR in [0, 255]."""
        height, width = light.shape[:2]
        y, x = self.shifts[index]
        gain = np.tile(self.gains[index] * np.float32(self.contrast), width).reshape(1, width, 3)
        levels = light * self.vignette
        levels *= gain
        levels += self.noise[y:y + height, x:x + width]
        levels += np.float32(self.haze * (1 - self.contrast) + 0.5)
        return np.asarray(np.clip(levels, 0, 255, out=levels).astype(np.uint8))


@dataclass(frozen=True)
class LightRanges:
    """Ranges of a clip's lighting."""

    drift: float = 0.12  # largest slow relative change of the gain
    flicker: float = 0.0  # standard deviation of the relative gain from frame to frame
    cast: float = 0.08  # largest relative change of a single colour
    contrast: tuple[float, float] = (0.9, 1.0)
    noise: tuple[float, float] = (1.0, 4.0)  # standard deviation, grey levels


def make_sensor(rng: np.random.Generator, ranges: LightRanges, shutters: Floats, height: int, width: int) -> Sensor:
    """A sensor for a clip of `len(shutters)` frames of (height, width) pixels."""
    num_frames = len(shutters)
    time = np.arange(num_frames)[:, None]
    rates, phases = rng.uniform(0.05, 0.3, 4), rng.uniform(0, 2 * np.pi, 4)
    amounts = np.array([ranges.drift, *[ranges.cast] * 3]) * rng.uniform(0, 1, 4)
    waves = amounts * np.sin(rates * time + phases)  # (T, 4)
    gains = (1 + waves[:, :1]) * (1 + waves[:, 1:]) * (1 + rng.normal(0, 1, (num_frames, 1)) * ranges.flicker)
    y, x = np.mgrid[-1:1:height * 1j, -1:1:width * 1j]
    vignette = np.repeat((1 - rng.uniform(0, 0.35) * (x ** 2 + y ** 2) / 2)[:, :, None], 3, axis=2)
    size = (height + NOISE_SHIFTS, width + NOISE_SHIFTS)
    noise = rng.standard_normal((*size, 3), np.float32) * np.float32(rng.uniform(*ranges.noise))
    if rng.random() < 0.5:  # coarser grain, as after a camera's noise reduction
        noise = np.asarray(cv2.blur(noise, (2, 2)), np.float32) * np.float32(1.6)
    shifts = rng.integers(0, NOISE_SHIFTS, (num_frames, 2)).tolist()
    return Sensor(shutters, np.clip(gains, 0.4, 1.6).astype(np.float32), vignette.astype(np.float32),
                  rng.uniform(*ranges.contrast), rng.uniform(70, 150), noise, tuple((y, x) for y, x in shifts))
