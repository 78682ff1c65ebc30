"""Outlines: the shapes that define the classes, and shapes of clutter that belong to no class.

An outline is a closed polygon, (k, 2) float64 xy with y pointing down, centred, its longer side spanning -1 to 1.
"""
from __future__ import annotations

import numpy as np

from .arrays import Points

CLASSES = ("fish", "star", "heart", "moon", "cross", "triangle")  # class id 1 is the first

STRETCH = 0.12  # maximum relative stretch or squeeze in width
ARC_STEPS = 48  # vertices of a curved edge
CORNER_STEPS = 5  # vertices of a rounded corner


def class_outline(name: str, rng: np.random.Generator) -> Points:
    """A random outline of a class, slightly varied and possibly mirrored."""
    shape = {"fish": _fish, "star": _star, "heart": _heart, "moon": _moon, "cross": _cross,
             "triangle": _triangle}[name](rng)
    mirror = rng.choice([-1.0, 1.0])
    return fitted(shape * [mirror * rng.uniform(1 - STRETCH, 1 + STRETCH), 1])


def clutter_outline(rng: np.random.Generator) -> Points:
    """An outline of no class, and unlike any of them: a box, an ellipse, a hexagon or a peanut."""
    kind = rng.integers(4)
    if kind == 0:
        return box_outline(rng.uniform(0.3, 1))
    angle = np.linspace(0, 2 * np.pi, 6 if kind == 1 else 2 * ARC_STEPS, endpoint=False)
    waist = rng.uniform(0.2, 0.32) if kind == 2 else 0.0
    return fitted(_polar(angle, 1 + waist * np.cos(2 * angle)) * [1, rng.uniform(0.55, 1)])


def box_outline(aspect: float) -> Points:
    """An upright rectangle with a ratio of width to height of `aspect` (at most 1)."""
    return np.array([[-aspect, -1], [aspect, -1], [aspect, 1], [-aspect, 1]], np.float64)


def fitted(shape: Points) -> Points:
    """The shape, centred and scaled so that its longer side spans -1 to 1."""
    low, high = shape.min(axis=0), shape.max(axis=0)
    return np.asarray((shape - (low + high) / 2) * 2 / (high - low).max(), np.float64)


def _fish(rng: np.random.Generator) -> Points:
    """Nose to the left, a lens-shaped body, a forked tail, a dorsal fin."""
    share = np.linspace(0, 1, ARC_STEPS)
    joint, height = 0.45, rng.uniform(0.38, 0.5)
    x = -1 + (1 + joint) * share
    half = height * np.sin(np.pi * (0.02 + 0.93 * share ** 0.9)) + 0.01
    fin = rng.uniform(0.1, 0.2) * np.exp(-((share - 0.55) / 0.11) ** 2)
    tip, notch = rng.uniform(0.4, 0.52), rng.uniform(0.78, 0.88)
    tail = _rounded(np.array([[joint, -0.1], [1.0, -tip], [notch, 0], [1.0, tip], [joint, 0.1]]), 0.15)
    back, belly = np.stack([x, -half - fin], axis=1), np.stack([x, half], axis=1)[::-1]
    return np.concatenate([back[:-2], tail[CORNER_STEPS // 2:-(CORNER_STEPS // 2)], belly[2:]])


def _star(rng: np.random.Generator) -> Points:
    angle = np.arange(10) * np.pi / 5 - np.pi / 2
    radius = np.where(np.arange(10) % 2, rng.uniform(0.4, 0.5), 1) * rng.uniform(0.95, 1.05, 10)
    return _rounded(_polar(angle, radius), rng.uniform(0.06, 0.16))


def _heart(rng: np.random.Generator) -> Points:
    t = np.linspace(0, 2 * np.pi, 2 * ARC_STEPS, endpoint=False)
    dip = rng.uniform(4.5, 6.0)
    y = 13 * np.cos(t) - dip * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return np.stack([16 * np.sin(t) ** 3, -y], axis=1) / 16


def _moon(rng: np.random.Generator) -> Points:
    """A disc minus a smaller disc that extends beyond its right edge."""
    radius = rng.uniform(0.76, 0.88)
    thickness = rng.uniform(0.5, 0.66)
    offset = thickness - 1 + radius
    crossing = (1 + offset ** 2 - radius ** 2) / (2 * offset)
    outer = np.arccos(crossing)
    inner = np.arctan2(np.sqrt(1 - crossing ** 2), crossing - offset)
    outside = _polar(np.linspace(outer, 2 * np.pi - outer, ARC_STEPS), np.ones(ARC_STEPS))
    inside = _polar(np.linspace(2 * np.pi - inner, inner, ARC_STEPS), np.full(ARC_STEPS, radius)) + [offset, 0]
    return np.concatenate([outside, inside[1:-1]])


def _cross(rng: np.random.Generator) -> Points:
    a = rng.uniform(0.24, 0.34)
    quarter = np.array([[a, -1], [a, -a], [1, -a]])
    turns = [np.array([[0, 1], [-1, 0]]), np.eye(2)]
    quarters = [quarter]
    for _ in range(3):
        quarters.append(quarters[-1] @ turns[0])
    return _rounded(np.concatenate(quarters), rng.uniform(0.05, 0.25))


def _triangle(rng: np.random.Generator) -> Points:
    angle = np.arange(3) * 2 * np.pi / 3 - np.pi / 2 + rng.uniform(-0.12, 0.12, 3)
    return _rounded(_polar(angle, rng.uniform(0.92, 1.08, 3)), rng.uniform(0.04, 0.14))


def _polar(angle: Points, radius: Points) -> Points:
    return np.stack([np.cos(angle) * radius, np.sin(angle) * radius], axis=1)


def _rounded(corners: Points, cut: float) -> Points:
    """Replace every corner by a curve that starts and ends at a fraction `cut` (at most 0.5) of its edges."""
    before, after = np.roll(corners, 1, axis=0), np.roll(corners, -1, axis=0)
    start, end = corners + cut * (before - corners), corners + cut * (after - corners)
    t = np.linspace(0, 1, CORNER_STEPS)[None, :, None]
    curves = (1 - t) ** 2 * start[:, None] + 2 * t * (1 - t) * corners[:, None] + t ** 2 * end[:, None]
    return np.asarray(curves.reshape(-1, 2), np.float64)  # (corners * CORNER_STEPS, 2)
