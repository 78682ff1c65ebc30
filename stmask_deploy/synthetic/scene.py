"""A scene: everything a clip consists of, and the light that reaches the camera."""
from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .arrays import Floats, Image, Points
from .backdrop import Backdrop, make_backdrop
from .casting import Stage, cast
from .motion import Camera, Jolt
from .sensor import Sensor, make_sensor
from .splits import Split, Style
from .sprites import bounds, coverage, fill
from .things import Thing, label_map

_BLUR_STEP = 3.0  # largest motion in pixels between two of the moments averaged in a blurred frame
_MAX_MOMENTS = 8
_SHADOW_SCALE = 4  # shadows are soft, so a quarter of the resolution suffices
_SHADOW_OFFSET = 0.018  # fraction of the frame's height
_SHADOW_STRENGTH = 0.45


@dataclass(frozen=True)
class Scene:
    """A clip before it is recorded."""

    height: int
    width: int
    things: tuple[Thing, ...]  # from back to front
    camera: Camera
    backdrop: Backdrop
    sensor: Sensor
    has_shadows: bool

    def record(self, index: int) -> Image:
        """(H, W, 3) BGR: the frame at an index, with motion blur from the time the shutter is open."""
        shutter = float(self.sensor.shutters[index])
        count = self._moments(index, shutter)
        light = np.zeros((self.height, self.width, 3), np.float32)
        for step in range(count):
            light += self.light(index + shutter * ((step + 0.5) / count - 0.5))
        return self.sensor.expose(light / np.float32(count), index)

    def labels(self, index: int) -> Image:
        """(H, W): number of the thing visible in the middle of the exposure, 1 for the first; 0 for none."""
        return label_map(self.things, self.camera, index, self.height, self.width)

    def light(self, time: float) -> Floats:
        """(H, W, 3) BGR in [0, 255]: the view at one moment."""
        height, width = self.height, self.width
        view = self.backdrop.view(self.camera.position(time) * height, height, width).astype(np.float32)
        for thing in self.things:
            pose = thing.pose(self.camera, time, height, width)
            vertices = pose.place(thing.sprite.outline)
            if self.has_shadows:
                _shade(view, vertices + _SHADOW_OFFSET * height)
            rect = bounds(vertices, height, width)
            if rect is not None:
                _blend(view[rect.slices], thing.sprite.warp(pose, rect), coverage(vertices, rect))
        return view

    def _moments(self, index: int, shutter: float) -> int:
        """Number of moments averaged in a frame, which grows with the fastest motion."""
        if shutter == 0:
            return 1
        first, last = index - shutter / 2, index + shutter / 2
        ways = [self.camera.position(last) - self.camera.position(first)]
        ways += [thing.path.position(last) - thing.path.position(first)
                 - self.camera.shift(last) + self.camera.shift(first) for thing in self.things]
        longest = max(float(np.linalg.norm(way)) for way in ways) * self.height
        return int(np.clip(np.ceil(longest / _BLUR_STEP), 2, _MAX_MOMENTS))


def make_scene(split: Split, index: int, num_frames: int, height: int, width: int) -> Scene:
    """The scene of a clip, determined by the arguments alone."""
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([split.seed, index])))
    style = split.style(rng)
    jolts = _jolts(rng, style, num_frames)
    camera = _camera(rng, style, jolts)
    things = cast(Stage(rng, style, camera, num_frames, height, width))
    shutters = _shutters(rng, style, jolts, num_frames)
    ends = [camera.position(index + side * shutter / 2) * height
            for index, shutter in enumerate(shutters) for side in (-1, 1)]
    backdrop = make_backdrop(rng, ends, height, width, int(rng.integers(style.clutter[0], style.clutter[1] + 1)))
    ranges = style.dull_light if rng.random() < style.dull_chance else style.light
    sensor = make_sensor(rng, ranges, shutters, height, width)
    return Scene(height, width, things, camera, backdrop, sensor, has_shadows=bool(rng.random() < style.shadow_chance))


def _camera(rng: np.random.Generator, style: Style, jolts: tuple[Jolt, ...]) -> Camera:
    pan = rng.uniform(-style.pan, style.pan), rng.uniform(-style.pan, style.pan) / 3
    shake = rng.uniform(0, style.shake, 2)
    return Camera(pan, (shake[0], shake[1]), rng.uniform(0.2, 0.6), jolts)


def _jolts(rng: np.random.Generator, style: Style, num_frames: int) -> tuple[Jolt, ...]:
    jolts = []
    for _ in range(rng.integers(style.jolts[0], style.jolts[1] + 1)):
        frames, reach, turn = rng.uniform(4, 8), rng.uniform(0.03, 0.09), rng.uniform(0, 2 * np.pi)
        start = rng.uniform(0, max(num_frames - frames, 1))
        jolts.append(Jolt(start, frames, (reach * np.cos(turn), reach * np.sin(turn) * 0.6)))
    return tuple(jolts)


def _shutters(rng: np.random.Generator, style: Style, jolts: tuple[Jolt, ...], num_frames: int) -> Floats:
    """(T,): exposure times, long throughout a blurred clip and longest during jolts, whose motion causes the blur."""
    usual = rng.uniform(*style.shutters) if rng.random() < style.blur_chance else 0.0
    shutters = np.full(num_frames, usual, np.float32)
    for jolt in jolts:
        time = np.arange(num_frames)
        shutters[(time > jolt.start - 0.5) & (time < jolt.start + jolt.frames + 0.5)] = rng.uniform(0.7, 0.95)
    return shutters


def _blend(below: Floats, above: Image, alpha: Image) -> None:
    """Blend (H, W, 3) over (H, W, 3), in place; alpha (H, W) in [0, 255]."""
    share = alpha.astype(np.float32) * np.float32(1 / 255)
    below += (above.astype(np.float32) - below) * cv2.merge([share, share, share])


def _shade(view: Floats, vertices: Points) -> None:
    """Darken (H, W, 3) under a soft-edged polygon, in place."""
    height, width = view.shape[:2]
    blur = max(1, round(0.02 * height / _SHADOW_SCALE))  # in pixels of the reduced picture
    rect = bounds(vertices, height, width, margin=2.0 * blur * _SHADOW_SCALE)
    if rect is None:
        return
    size = rect.x2 - rect.x1, rect.y2 - rect.y1
    small = np.zeros((-(-size[1] // _SHADOW_SCALE), -(-size[0] // _SHADOW_SCALE)), np.uint8)
    fill(small, (vertices - [rect.x1, rect.y1] + 0.5) / _SHADOW_SCALE - 0.5)
    small = np.asarray(cv2.blur(cv2.blur(small, (2 * blur + 1,) * 2), (2 * blur + 1,) * 2), np.uint8)
    factor = 1 - cv2.resize(small, size, interpolation=cv2.INTER_LINEAR).astype(np.float32) * (_SHADOW_STRENGTH / 255)
    view[rect.slices] *= cv2.merge([factor, factor, factor])
