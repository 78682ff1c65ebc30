"""Things: everything that moves through a clip, objects with a class as well as shapes without one."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .arrays import Image, Points
from .motion import Camera, Trajectory
from .sprites import Pose, Sprite, bounds, coverage

SOLID = 128  # coverage out of 255 from which a pixel belongs to a thing


@dataclass(frozen=True)
class Thing:
    """A sprite and its path."""

    sprite: Sprite
    path: Trajectory
    class_id: int  # 1-based; 0 for things without a class, which are not annotated

    def pose(self, camera: Camera, time: float, height: int, width: int) -> Pose:
        """Its pose in a frame of (height, width) pixels; pixel centres are at integers."""
        x, y = (self.path.position(time) - camera.shift(time)) * height - 0.5
        return Pose(float(x), float(y), self.path.size_at(time) * height, self.path.angle_at(time))

    def outline(self, camera: Camera, time: float, height: int, width: int) -> Points:
        """(k, 2) vertices in pixels of a frame of (height, width)."""
        return self.pose(camera, time, height, width).place(self.sprite.outline)


def label_map(things: Sequence[Thing], camera: Camera, time: float, height: int, width: int) -> Image:
    """(height, width): number of the thing seen at each pixel, 1 for the first; 0 for none. Later ones are in front."""
    labels = np.zeros((height, width), np.uint8)
    for number, thing in enumerate(things, start=1):
        outline = thing.outline(camera, time, height, width)
        rect = bounds(outline, height, width)
        if rect is not None:
            labels[rect.slices][coverage(outline, rect) >= SOLID] = number
    return labels
