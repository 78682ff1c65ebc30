"""Propagation of objects from the previous frame to the current one by the temporal network (paper section 3.2)."""
from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stmask_deploy.geometry import decode_boxes, xyxy_to_cxcywh
from stmask_deploy.types import Array, TrackedInstances

from .masks import assemble_masks

SCORE_DECAY = 0.95  # factor on the score for each key frame in which an object is propagated without being detected
# In frame sizes. Clipping at this size changes no mask and no match, but keeps growing boxes in the range of float32.
COORDINATE_LIMIT = 1e4


class Moved(NamedTuple):
    """Boxes and mask coefficients of n objects of the previous frame, moved to the current one."""

    boxes: Array  # (n, 4) xyxy, fractions of the padded frame
    mask_coeffs: Array  # (n, P) before tanh


def move(tracks: TrackedInstances, box_deltas: Array, coeff_deltas: Array) -> Moved:
    """Apply the temporal network's outputs (paper eq. 12 and 13).

    Args:
        tracks: n objects as of the previous frame.
        box_deltas: (n, 4) d_x, d_y, d_w, d_h relative to the previous boxes.
        coeff_deltas: (n, P) added to the mask coefficients before tanh.
    """
    before = tracks.instances
    boxes = np.clip(decode_boxes(box_deltas, xyxy_to_cxcywh(before.boxes)), -COORDINATE_LIMIT, COORDINATE_LIMIT)
    return Moved(boxes, before.mask_coeffs + coeff_deltas)


def propagate(tracks: TrackedInstances, moved: Moved, prototypes: Array,
              score_decay: float = SCORE_DECAY) -> TrackedInstances:
    """Propagate all objects to the current frame, with their masks there (paper eq. 14).

    Args:
        tracks: n objects as of the previous frame.
        moved: the same objects, moved to the current frame.
        prototypes: (Hm, Wm, P) of the current frame, at least inside the boxes of `moved`.
        score_decay: factor on the scores.

    Returns:
        The same objects with new boxes, coefficients and masks, decayed scores and ages incremented; the rest as
        before.
    """
    before = tracks.instances
    instances = before.replace(boxes=moved.boxes, mask_coeffs=moved.mask_coeffs,
                               masks=assemble_masks(prototypes, moved.mask_coeffs, moved.boxes),
                               scores=before.scores * np.float32(score_decay))
    return tracks.replace(instances=instances, ages=tracks.ages + 1)
