"""Motion of objects and camera. Lengths are fractions of the frame's height, times are in frames, angles in radians."""
from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .arrays import Points


@dataclass(frozen=True)
class Trajectory:
    """Position of an object in the view of a steady camera, its size and its rotation over time."""

    anchor: tuple[float, float]  # xy of its centre at `anchor_time`, apart from the sway
    anchor_time: float
    velocity: tuple[float, float]
    size: float  # of its longer side, mean over time
    acceleration: tuple[float, float] = (0.0, 0.0)
    sway: tuple[float, float] = (0.0, 0.0)  # amplitude of the oscillation about the smooth path
    sway_rate: float = 0.0
    growth: float = 0.0  # relative amplitude of the change in size
    growth_rate: float = 0.0
    angle: float = 0.0
    spin: float = 0.0
    phase: float = 0.0  # of sway and growth

    def position(self, time: float) -> Points:
        """(2,) xy of the centre."""
        t = time - self.anchor_time
        smooth = np.array(self.anchor) + np.array(self.velocity) * t + np.array(self.acceleration) * (t * t / 2)
        return np.asarray(smooth + np.array(self.sway) * np.sin(self.sway_rate * t + self.phase), np.float64)

    def size_at(self, time: float) -> float:
        return float(self.size * (1 + self.growth * np.sin(self.growth_rate * time + self.phase)))

    def angle_at(self, time: float) -> float:
        return self.angle + self.spin * time

    def fastest(self, num_frames: int) -> float:
        """The longest distance covered from one frame to the next."""
        places = np.array([self.position(time) for time in range(num_frames)])
        return float(np.linalg.norm(np.diff(places, axis=0), axis=1).max(initial=0))

    def limited(self, speed: float, num_frames: int) -> Trajectory:
        """The same path, slowed down as a whole if any of its steps would be longer than `speed`."""
        share = min(1.0, speed / max(self.fastest(num_frames), 1e-9))
        return replace(self, velocity=_times(self.velocity, share), acceleration=_times(self.acceleration, share),
                       sway=_times(self.sway, share))


@dataclass(frozen=True)
class Jolt:
    """A jerk of the camera, there and back within a few frames."""

    start: float
    frames: float
    reach: tuple[float, float]

    def offset(self, time: float) -> Points:
        """(2,) xy."""
        share = (time - self.start) / self.frames
        inside = 0 < share < 1
        return np.array(self.reach) * (np.sin(2 * np.pi * share) if inside else 0.0)


@dataclass(frozen=True)
class Camera:
    """Pans slowly over the background; shaking and jolts also move the objects in view."""

    pan: tuple[float, float] = (0.0, 0.0)  # per frame
    shake: tuple[float, float] = (0.0, 0.0)
    shake_rate: float = 0.0
    jolts: tuple[Jolt, ...] = ()

    def shift(self, time: float) -> Points:
        """(2,) xy deviation of the view from its steady course: objects appear that far to the left and up."""
        swing = np.array([np.sin(self.shake_rate * time), np.sin(1.37 * self.shake_rate * time + 1)])
        return np.asarray(np.array(self.shake) * swing + sum((jolt.offset(time) for jolt in self.jolts), np.zeros(2)),
                          np.float64)

    def position(self, time: float) -> Points:
        """(2,) xy of the view over the background."""
        return np.asarray(np.array(self.pan) * time + self.shift(time), np.float64)


def _times(pair: tuple[float, float], factor: float) -> tuple[float, float]:
    return pair[0] * factor, pair[1] * factor
