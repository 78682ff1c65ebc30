"""How objects and the camera move."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .sprites import Pose
from .splits import Style

STRAIGHT = 1e-6  # radians a frame; slower turns are none


@dataclass(frozen=True)
class Path:
    """An arc travelled at constant speed, with a slow change of size and a rotation. Lengths are pixels, times frames."""

    time: float  # at which it is at (x, y)
    x: float
    y: float
    heading: float  # radians at that time
    speed: float
    turn: float  # radians a frame
    side: float
    growth: tuple[float, float, float]  # amplitude, frequency, phase
    angle: float  # radians at time 0
    spin: float

    def at(self, time: float) -> Pose:
        """Where the object is; any time, whole or not."""
        past = time - self.time
        if abs(self.turn) < STRAIGHT:
            x = self.x + self.speed * past * np.cos(self.heading)
            y = self.y + self.speed * past * np.sin(self.heading)
        else:
            radius, now = self.speed / self.turn, self.heading + self.turn * past
            x = self.x + radius * (np.sin(now) - np.sin(self.heading))
            y = self.y - radius * (np.cos(now) - np.cos(self.heading))
        amplitude, frequency, phase = self.growth
        side = self.side * (1 + amplitude * np.sin(frequency * time + phase))
        return Pose(float(x), float(y), float(side), self.angle + self.spin * time)


def draw_path(rng: np.random.Generator, style: Style, size: tuple[int, int], num_frames: int,
              others: list[Path]) -> Path:
    """A path that comes through the picture at some time, perhaps where an earlier object is then."""
    height, width = size
    time = float(rng.uniform(0.1, 0.9) * (num_frames - 1))
    x, y = rng.uniform(0.12, 0.88) * width, rng.uniform(0.15, 0.85) * height
    side = rng.uniform(*style.side) * height
    if others and rng.random() < style.meets:
        other = others[rng.integers(len(others))].at(time)
        if 0 < other.x < width and 0 < other.y < height:
            x, y = (np.array([other.x, other.y]) + rng.normal(0, 0.15 * side, 2)).tolist()
    heading = rng.normal(0, 0.45) + np.pi * rng.integers(2)  # mostly to a side: frames are wider than high
    return Path(time, float(x), float(y), float(heading), float(rng.uniform(*style.speed) * width),
                float(rng.uniform(-style.turn, style.turn)), float(side),
                (float(rng.uniform(0, style.growth)), float(rng.uniform(0.03, 0.15)), float(rng.uniform(0, 6))),
                float(rng.uniform(0, 2 * np.pi)), float(rng.uniform(-style.spin, style.spin)))


@dataclass(frozen=True)
class Camera:
    """The upper left corner of the view on the background, in its pixels."""

    start: tuple[float, float]
    speed: tuple[float, float]  # pixels a frame
    limit: tuple[float, float]  # largest x and y

    def at(self, time: float) -> tuple[float, float]:
        """(x, y); at the ends of the background the camera turns back."""
        x, y = (_bounce(start + speed * time, limit)
                for start, speed, limit in zip(self.start, self.speed, self.limit, strict=True))
        return x, y


def _bounce(position: float, limit: float) -> float:
    position = position % (2 * limit)
    return 2 * limit - position if position > limit else position
