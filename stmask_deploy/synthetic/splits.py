"""The splits: number, length and style of their clips.

Lengths are fractions of the frame's height, speeds such fractions per frame, and chances apply to a whole clip.
"""
from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from .sensor import LightRanges

Range = tuple[float, float]


@dataclass(frozen=True)
class Style:
    """Ranges and chances of a kind of clip."""

    objects: tuple[int, int] = (2, 6)  # minimum, maximum
    sizes: Range = (0.2, 0.5)
    speeds: Range = (0.004, 0.04)
    speed_limit: float = 0.05
    twin_chance: float = 0.2  # per object: it looks like an earlier one
    crowd_chance: float = 0.25  # several objects meet slowly in one place
    pillar_chance: float = 0.0  # an unannotated thing in the foreground hides objects for some frames
    clutter: tuple[int, int] = (0, 10)  # shapes without a class on the background, minimum, maximum
    movers_chance: float = 0.25  # shapes without a class move among the objects
    pan: float = 0.008  # largest speed of the camera
    shake: float = 0.01
    blur_chance: float = 0.25  # the exposure is long throughout the clip
    shutters: Range = (0.25, 0.5)  # exposure times in that case
    jolts: tuple[int, int] = (0, 0)  # bursts of several strongly blurred frames, minimum, maximum
    shadow_chance: float = 0.5
    dull_chance: float = 0.1  # the contrast is low
    light: LightRanges = field(default_factory=LightRanges)
    dull_light: LightRanges = field(default_factory=lambda: LightRanges(contrast=(0.4, 0.6)))


MODERATE = Style()
HEAVY = Style(objects=(3, 7), sizes=(0.2, 0.46), speeds=(0.006, 0.05), speed_limit=0.07, twin_chance=0.5,
              crowd_chance=0.8, pillar_chance=0.6, clutter=(2, 14), movers_chance=0.4, pan=0.012, shake=0.015,
              blur_chance=0.5, shutters=(0.4, 0.8), jolts=(0, 2), dull_chance=0.4,
              light=LightRanges(drift=0.25, flicker=0.05, cast=0.12, contrast=(0.75, 1.0), noise=(2.0, 6.0)),
              dull_light=LightRanges(drift=0.2, flicker=0.08, cast=0.12, contrast=(0.35, 0.55), noise=(2.0, 5.0)))


@dataclass(frozen=True)
class Split:
    """A set of clips; each depends only on the seed, its index, the number of frames and their size."""

    name: str
    seed: int
    num_clips: int
    num_frames: int
    styles: tuple[tuple[float, Style], ...]  # fraction of the clips, and their style

    def style(self, rng: np.random.Generator) -> Style:
        """A random style, drawn according to the fractions."""
        shares = np.array([share for share, _ in self.styles])
        return self.styles[rng.choice(len(shares), p=shares / shares.sum())][1]


# Short training clips leave less time to enter, leave and meet, so there is more of everything.
_MIXED = replace(MODERATE, objects=(2, 7), sizes=(0.18, 0.52), speeds=(0.004, 0.05), speed_limit=0.06,
                 crowd_chance=0.4, clutter=(0, 14), dull_chance=0.15, jolts=(0, 1),
                 light=LightRanges(drift=0.2, flicker=0.01, cast=0.12, contrast=(0.75, 1.0), noise=(1.0, 5.0)))

# Pleasant to look at, with a bar behind which objects disappear and reappear.
_PLEASANT = replace(MODERATE, objects=(5, 6), sizes=(0.24, 0.5), speeds=(0.006, 0.03), twin_chance=0.25,
                    crowd_chance=0.6, pillar_chance=1.0, clutter=(2, 7), shadow_chance=1.0)

SPLITS = {split.name: split for split in (
    Split("train", 1, 480, 12, ((0.65, _MIXED), (0.35, HEAVY))),
    Split("val", 2, 30, 30, ((1.0, MODERATE),)),
    Split("hard", 3, 30, 30, ((1.0, replace(HEAVY, jolts=(1, 3))),)),
    Split("demo", 9, 1, 96, ((1.0, _PLEASANT),)),  # the clip that comes with the package
)}
