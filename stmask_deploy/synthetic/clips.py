"""Clips: sequences of annotated frames."""
from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stmask_deploy.errors import InputError
from stmask_deploy.wording import counted

from .arrays import Image
from .scene import Scene, make_scene
from .splits import SPLITS, Split

SIZE = (360, 640)
MIN_SIZE, MAX_SIZE = 32, 4096  # pixels per side
MAX_ASPECT = 16  # ratio of the longer to the shorter side
MAX_CLIPS = 100_000  # of a split; all are listed before the first is written
MAX_FRAMES = 10_000  # of a clip; the camera travels, so memory grows with their square: up to 5 GB at 360x640
MIN_VISIBLE_PIXELS = 16  # an object with fewer visible pixels in a frame counts as not visible


@dataclass(frozen=True)
class AnnotatedFrame:
    """A frame and the masks of the objects visible in it."""

    image: Image  # (H, W, 3) BGR
    masks: NDArray[np.bool_]  # (n, H, W), the visible pixels of the clip's n objects: disjoint, possibly empty


@dataclass(frozen=True)
class Clip:
    """A clip of `num_frames` frames, rendered on demand; iterating twice renders twice."""

    name: str
    num_frames: int
    scene: Scene

    @cached_property
    def _numbers(self) -> list[int]:
        """Label-map numbers of the things that are annotated objects."""
        return [number for number, thing in enumerate(self.scene.things, start=1) if thing.class_id]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frames in pixels."""
        return self.scene.height, self.scene.width

    @property
    def ids(self) -> NDArray[np.int64]:
        """(n,) identities, 1 to n, from back to front."""
        return np.arange(1, len(self._numbers) + 1)

    @property
    def class_ids(self) -> NDArray[np.int64]:
        """(n,) 1-based, into `outlines.CLASSES`."""
        return np.array([self.scene.things[number - 1].class_id for number in self._numbers], np.int64)

    def frame(self, index: int) -> AnnotatedFrame:
        """The frame at a 0-based index."""
        return AnnotatedFrame(self.scene.record(index), self.masks(index))

    def masks(self, index: int) -> NDArray[np.bool_]:
        """(n, H, W): the visible pixels of each object in a frame; all False below `MIN_VISIBLE_PIXELS`."""
        numbers = np.array(self._numbers, np.uint8).reshape(-1, 1, 1)
        masks = np.asarray(self.scene.labels(index)[None] == numbers, np.bool_)
        masks[masks.sum(axis=(1, 2)) < MIN_VISIBLE_PIXELS] = False
        return masks

    def pictures(self) -> Iterator[Image]:
        """The frames without their masks: (H, W, 3) BGR."""
        return (self.scene.record(index) for index in range(self.num_frames))

    def __iter__(self) -> Iterator[AnnotatedFrame]:
        return (self.frame(index) for index in range(self.num_frames))


def render(split: str | Split, index: int, num_frames: int | None = None, size: tuple[int, int] = SIZE) -> Clip:
    """Clip number `index` of a split; equal arguments give an equal clip.

    Args:
        split: a name, or a custom split.
        index: from 0.
        num_frames: by default the split's; a different number gives a different clip.
        size: (height, width) in pixels.

    Raises:
        InputError: there is no such split, or the size, index or number of frames is out of range.
    """
    if isinstance(split, str):
        if split not in SPLITS:
            raise InputError(f"no split {split!r}; there are {', '.join(SPLITS)}")
        split = SPLITS[split]
    num_frames = split.num_frames if num_frames is None else num_frames
    height, width = size
    if not (MIN_SIZE <= height <= MAX_SIZE and MIN_SIZE <= width <= MAX_SIZE):
        raise InputError(f"a size of {height}x{width} is not possible; sides are {MIN_SIZE} to {MAX_SIZE} pixels")
    if max(size) > MAX_ASPECT * min(size):  # hardly anything would be seen of an object
        raise InputError(f"a size of {height}x{width} is not possible; a side is at most {MAX_ASPECT} times the other")
    if not (0 <= index < MAX_CLIPS and 1 <= num_frames <= MAX_FRAMES):
        raise InputError(f"clip {index} of {counted(num_frames, 'frame')} is not possible; clips count from 0 to "
                         f"{MAX_CLIPS - 1} and have 1 to {MAX_FRAMES} frames")
    return Clip(clip_name(split.name, index), num_frames, make_scene(split, index, num_frames, height, width))


def clip_name(split: str, index: int) -> str:
    return f"{split}_{index:04d}"
