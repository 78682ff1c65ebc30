"""Pastes objects from one picture onto another (simple copy-paste, Ghiasi et al. 2021), in both frames of a pair."""
from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..datasets.annotations import Track
from .augmentation import Image


@dataclass(frozen=True)
class SeenObject:
    """An object as visible in a frame."""

    track: Track
    coverage: NDArray[np.uint8]  # (H, W) fraction of each pixel that it covers, 255 for all


@dataclass(frozen=True)
class SeenFrame:
    """A frame at the network's size, with its objects."""

    picture: Image  # (H, W, 3) BGR
    objects: tuple[SeenObject, ...]


def paste(onto: SeenFrame, source: SeenFrame, track_ids: Collection[int]) -> SeenFrame:
    """`onto` with the objects `track_ids` of `source` pasted in front of its own.

    Pasted objects keep their positions and are blended at their edges. What they hide is removed from the coverage of
    the objects behind; an object that is hidden completely stays in the list with zero coverage.

    Args:
        onto: the frame to paste on.
        source: a frame of the same size from another video.
        track_ids: of the objects to paste; ids not visible in `source` are ignored.
    """
    pasted = tuple(one for one in source.objects if one.track.id in track_ids)
    if not pasted:
        return onto
    # Coverages of touching objects add up along their common edge.
    front = np.minimum(np.sum([one.coverage for one in pasted], axis=0, dtype=np.float32) / 255, 1)
    picture = onto.picture + front[..., None] * (source.picture.astype(np.float32) - onto.picture)
    below = tuple(SeenObject(one.track, np.rint(one.coverage * (1 - front)).astype(np.uint8)) for one in onto.objects)
    return SeenFrame(np.rint(picture).astype(np.uint8), below + pasted)
