"""Objects of one picture pasted onto another (simple copy-paste, Ghiasi et al. 2021), here in both frames of a pair."""
from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..datasets.annotations import Track
from .augmentation import Image


@dataclass(frozen=True)
class SeenObject:
    """An object as a frame shows it."""

    track: Track
    coverage: NDArray[np.uint8]  # (H, W) how much of each pixel it covers, 255 for all


@dataclass(frozen=True)
class SeenFrame:
    """A frame of the network's size with its objects."""

    picture: Image  # (H, W, 3) BGR
    objects: tuple[SeenObject, ...]


def paste(onto: SeenFrame, source: SeenFrame, track_ids: Collection[int]) -> SeenFrame:
    """`onto` with the objects `track_ids` of `source` in front of its own.

    They lie where they lay, blended at their edges. What they hide of the objects below is taken from those; an object
    that is hidden altogether stays in the list, with a coverage of zeros.

    Args:
        onto: the picture to paste on.
        source: of the same size, of another video.
        track_ids: of the objects to paste; those that `source` does not show are left out.
    """
    pasted = tuple(one for one in source.objects if one.track.id in track_ids)
    if not pasted:
        return onto
    # Coverages of objects that touch add up along their common edge.
    front = np.minimum(np.sum([one.coverage for one in pasted], axis=0, dtype=np.float32) / 255, 1)
    picture = onto.picture + front[..., None] * (source.picture.astype(np.float32) - onto.picture)
    below = tuple(SeenObject(one.track, np.rint(one.coverage * (1 - front)).astype(np.uint8)) for one in onto.objects)
    return SeenFrame(np.rint(picture).astype(np.uint8), below + pasted)
