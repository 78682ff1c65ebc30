"""Casting: which things appear in a clip, what they look like, and the paths they take."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .arrays import Floats
from .motion import Camera, Trajectory
from .outlines import CLASSES, box_outline, class_outline, clutter_outline
from .splits import Style
from .sprites import make_sprite
from .textures import random_palette
from .things import Thing, label_map

MIN_SIZE = 0.14  # of an object, fraction of the frame's height; smaller ones are useless at the network's resolution
_PILLAR_LENGTH = 1.7
_REHEARSAL_HEIGHT = 90  # pixels; fixed, so that the cast does not depend on the size of the clip
_WELL_SEEN = 0.25  # fraction of an object that must be in view and unoccluded in at least `_FRAMES_SEEN` frames
_FRAMES_SEEN = 3
_ATTEMPTS = 20


@dataclass(frozen=True)
class Stage:
    """The setting in which a cast is chosen."""

    rng: np.random.Generator
    style: Style
    camera: Camera
    num_frames: int
    height: int
    width: int

    @property
    def aspect(self) -> float:
        return self.width / self.height

    def place(self, border: float) -> tuple[float, float]:
        """A random xy, in fractions of the view's height, at least `border` from the edge where the view allows it."""
        border = min(border, self.aspect / 2)
        return self.rng.uniform(border, self.aspect - border), self.rng.uniform(border, 1 - border)

    def moment(self, low: float = 0.0, high: float = 1.0) -> float:
        """A random time between two fractions of the clip's length."""
        return self.rng.uniform(low, high) * (self.num_frames - 1)


def cast(stage: Stage) -> tuple[Thing, ...]:
    """Things from back to front; every object is clearly visible in some frames, and there are nearly always enough."""
    things: tuple[Thing, ...] = ()
    for _ in range(_ATTEMPTS):
        things = _rehearsed(stage, _candidates(stage))
        if sum(thing.class_id > 0 for thing in things) >= stage.style.objects[0]:
            break
    return things


def _candidates(stage: Stage) -> list[Thing]:
    rng, style = stage.rng, stage.style
    palette = random_palette(rng)
    count = int(rng.integers(style.objects[0], style.objects[1] + 1))
    objects: list[Thing] = []
    pillar, passing = _pillar(stage) if rng.random() < style.pillar_chance else (None, [])
    crowd = _crowd(stage, count - len(passing)) if rng.random() < style.crowd_chance else []
    paths = [*passing, *crowd]
    paths += [_free_path(stage) for _ in range(count - len(paths))]
    deck: list[int] = []
    for path in paths[:count]:
        if not deck:
            deck = rng.permutation(len(CLASSES)).tolist()
        if objects and rng.random() < style.twin_chance:
            twin = objects[rng.integers(len(objects))]
            objects.append(Thing(twin.sprite, path, twin.class_id))
        else:
            objects.append(_object(stage, path, deck.pop(), palette))
    if rng.random() < style.movers_chance:
        objects += [_mover(stage, palette) for _ in range(rng.integers(1, 3))]
    return [objects[i] for i in rng.permutation(len(objects))] + ([] if pillar is None else [pillar])


def _rehearsed(stage: Stage, things: Sequence[Thing]) -> tuple[Thing, ...]:
    """The things without objects that would hardly be visible."""
    height, width = _REHEARSAL_HEIGHT, round(_REHEARSAL_HEIGHT * stage.aspect)
    seen = np.zeros(len(things), int)
    for time in range(stage.num_frames):
        counts = np.bincount(label_map(things, stage.camera, time, height, width).ravel(), minlength=len(things) + 1)
        whole = [cv2.contourArea(thing.outline(stage.camera, time, height, width).astype(np.float32))
                 for thing in things]
        seen += counts[1:] > _WELL_SEEN * np.array(whole)
    enough = min(_FRAMES_SEEN, stage.num_frames)
    return tuple(thing for thing, frames in zip(things, seen, strict=True) if frames >= enough or not thing.class_id)


def _object(stage: Stage, path: Trajectory, class_index: int, palette: Floats) -> Thing:
    rng = stage.rng
    colors = rng.permutation(palette) if rng.random() < 0.5 else random_palette(rng)
    sprite = make_sprite(class_outline(CLASSES[class_index], rng), colors, path.size * stage.height, rng)
    return Thing(sprite, path, class_index + 1)


def _mover(stage: Stage, palette: Floats) -> Thing:
    path = _free_path(stage)
    sprite = make_sprite(clutter_outline(stage.rng), stage.rng.permutation(palette), path.size * stage.height,
                         stage.rng)
    return Thing(sprite, path, 0)


def _free_path(stage: Stage) -> Trajectory:
    """A path that at some moment passes through a random place in the view, often near its border."""
    rng = stage.rng
    border = 0.02 if rng.random() < 0.3 else 0.15
    return _path(stage, stage.place(border), stage.moment(), _velocity(stage))


def _crowd(stage: Stage, most: int) -> list[Trajectory]:
    """Paths that cross slowly at about the same place and time."""
    rng = stage.rng
    x, y = stage.place(0.3)
    moment = stage.moment(0.3, 0.7)
    count = min(most, int(rng.integers(2, 5)))
    jitter = rng.uniform(-0.1, 0.1, (count, 2))
    return [_path(stage, (x + dx, y + dy), moment + rng.uniform(-2, 2), _velocity(stage, 0.6))
            for dx, dy in jitter.tolist()]


def _pillar(stage: Stage) -> tuple[Thing, list[Trajectory]]:
    """A bar in the foreground, wide enough to hide one or two small objects, and their paths behind it."""
    rng, style = stage.rng, stage.style
    x, moment = rng.uniform(0.3, 0.7) * stage.aspect, stage.moment(0.35, 0.65)
    drift = rng.uniform(-0.02, 0.02)
    count = int(rng.integers(1, 3))
    largest, hidden, speed = rng.uniform(0.18, 0.25), rng.uniform(2, 6), rng.uniform(0.03, 0.05)
    passing = []
    for _ in range(count):
        direction = rng.choice([-1.0, 1.0])
        place = x + rng.uniform(-0.02, 0.02), rng.uniform(0.2, 0.8)
        velocity = drift + direction * speed, rng.uniform(-0.008, 0.008)
        passing.append(Trajectory(place, moment, velocity, size=largest * rng.uniform(0.85, 1), angle=rng.uniform(0, 6),
                            spin=rng.uniform(-0.03, 0.03)).limited(style.speed_limit, stage.num_frames))
    width = largest * 1.15 + hidden * speed
    sprite = make_sprite(box_outline(width / _PILLAR_LENGTH), random_palette(rng), _PILLAR_LENGTH * stage.height, rng)
    path = Trajectory((x, 0.5), moment, (drift, 0.0), size=_PILLAR_LENGTH, angle=rng.uniform(-0.15, 0.15))
    return Thing(sprite, path, 0), passing


def _velocity(stage: Stage, factor: float = 1.0) -> tuple[float, float]:
    """A random velocity in any direction, more often horizontal; slow ones are as likely as fast ones."""
    rng = stage.rng
    speed, turn = rng.uniform(*stage.style.speeds) * factor, rng.uniform(0, 2 * np.pi)
    return speed * np.cos(turn), 0.6 * speed * np.sin(turn)


def _path(stage: Stage, anchor: tuple[float, float], moment: float, velocity: tuple[float, float]) -> Trajectory:
    """A path through a place at a moment, with random variations: some accelerate, some sway."""
    rng, style = stage.rng, stage.style
    size = rng.uniform(*style.sizes)
    growth = min(rng.uniform(0, 0.25), 1 - MIN_SIZE / size)
    bend = rng.uniform(-0.0012, 0.0012, 2) * (rng.random() < 0.4)
    sway = rng.uniform(-0.06, 0.06, 2) * (rng.random() < 0.4)
    path = Trajectory(anchor, moment, velocity, size, acceleration=(bend[0], bend[1]), sway=(sway[0], sway[1]),
                sway_rate=rng.uniform(0.1, 0.3), growth=growth, growth_rate=rng.uniform(0.05, 0.25),
                angle=rng.uniform(0, 2 * np.pi), spin=rng.normal(0, 0.035), phase=rng.uniform(0, 2 * np.pi))
    return path.limited(style.speed_limit, stage.num_frames)
