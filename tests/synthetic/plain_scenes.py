"""Scenes with nothing random in them: white things on black, seen by a perfect camera."""
from __future__ import annotations

from dataclasses import replace

import numpy as np

from stmask_deploy.synthetic.backdrop import Backdrop
from stmask_deploy.synthetic.clips import Clip
from stmask_deploy.synthetic.motion import Camera, Trajectory
from stmask_deploy.synthetic.outlines import class_outline
from stmask_deploy.synthetic.scene import Scene
from stmask_deploy.synthetic.sensor import NOISE_SHIFTS, Sensor
from stmask_deploy.synthetic.sprites import Sprite
from stmask_deploy.synthetic.things import Thing

HEIGHT, WIDTH = 90, 160


def thing(path: Trajectory, name: str = "star", class_id: int = 2, level: int = 255) -> Thing:
    """An evenly grey thing."""
    outline = class_outline(name, np.random.default_rng(0))
    return Thing(Sprite(outline, np.full((41, 41, 3), level, np.uint8), 20.0), path, class_id)


def still(x: float, y: float, size: float) -> Trajectory:
    """A path that stays; shares of the height."""
    return Trajectory((x, y), 0.0, (0.0, 0.0), size)


def clip(*things: Thing, num_frames: int = 5, shutter: float = 0.0, camera: Camera | None = None) -> Clip:
    """A clip of the things, the last one in front."""
    sensor = Sensor(np.full(num_frames, shutter, np.float32), np.ones((num_frames, 3), np.float32),
                    np.ones((HEIGHT, WIDTH, 3), np.float32), 1.0, 0.0,
                    np.zeros((HEIGHT + NOISE_SHIFTS, WIDTH + NOISE_SHIFTS, 3), np.float32), ((0, 0),) * num_frames)
    backdrop = Backdrop(np.zeros((HEIGHT, WIDTH, 3), np.uint8), (0, 0))
    return Clip("plain", num_frames, Scene(HEIGHT, WIDTH, things, camera or Camera(), backdrop, sensor, False))


def without(full: Clip, index: int) -> Clip:
    """The same clip without one of its things."""
    things = full.scene.things[:index] + full.scene.things[index + 1:]
    return replace(full, scene=replace(full.scene, things=things))
