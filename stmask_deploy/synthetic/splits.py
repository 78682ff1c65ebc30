"""The splits of the benchmark: how many clips, and what happens in them."""
from __future__ import annotations

from dataclasses import dataclass

Range = tuple[float, float]


@dataclass(frozen=True)
class Style:
    """What a clip is drawn from. Lengths are shares of the frame's height or width, chances are in [0, 1]."""

    objects: tuple[int, int]  # fewest and most
    side: Range = (0.18, 0.5)  # of an object, shares of the height
    speed: Range = (0.002, 0.02)  # of an object, shares of the width a frame
    turn: float = 0.06  # largest change of its heading, radians a frame
    spin: float = 0.05  # largest rotation, radians a frame
    growth: float = 0.2  # largest change of its size to both sides
    meets: float = 0.3  # chance that an object's path crosses an earlier one's
    twins: float = 0.25  # chance that an object takes class and surface of an earlier one
    pillars: tuple[int, int] = (0, 0)  # things in front of everything that belong to no class
    pan: float = 0.006  # largest speed of the camera, shares of the width a frame
    clutter: tuple[int, int] = (4, 16)  # things of no class on the background
    shutter: float = 0.25  # chance that a clip is exposed long, which blurs what moves
    burst: float = 0.0  # chance that the exposure grows long for some frames in a row
    muted: Range = (0.0, 0.25)  # loss of colour and contrast of objects
    contrast: Range = (0.75, 1.0)  # of the whole picture
    flicker: Range = (0.0, 0.05)  # amplitude of changes of the light
    noise: Range = (1.0, 4.0)  # standard deviation, grey levels


EASY = Style(objects=(2, 5))
BUSY = Style(objects=(3, 7), meets=0.5, twins=0.4, shutter=0.4)
HARD = Style(objects=(4, 7), side=(0.2, 0.45), speed=(0.006, 0.03), turn=0.1, meets=0.7, twins=0.6, pillars=(1, 3),
             pan=0.012, shutter=0.5, burst=0.7, muted=(0.1, 0.5), contrast=(0.45, 0.85), flicker=(0.05, 0.25),
             noise=(2.0, 6.0))


@dataclass(frozen=True)
class Split:
    """A part of the benchmark. Every clip depends on `seed` and its own number alone."""

    name: str
    seed: int
    num_clips: int
    num_frames: int  # of a clip
    styles: tuple[Style, ...]  # clips take them in turn


SPLITS = {split.name: split for split in (
    Split("train", 1, 720, 10, (EASY, HARD, BUSY)),
    Split("val", 2, 30, 30, (EASY, BUSY)),
    Split("hard", 3, 30, 30, (HARD,)),
)}
