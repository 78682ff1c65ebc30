"""Objects of the previous frame carried into the current one by the temporal network's answer (paper section 3.2)."""
from __future__ import annotations

from typing import NamedTuple

import numpy as np

from stmask_deploy.geometry import decode_boxes, xyxy_to_cxcywh
from stmask_deploy.types import Array, TrackedInstances

from .masks import assemble_masks

SCORE_DECAY = 0.95  # factor on the score for each frame an object is carried without being detected
# In frame sizes: a box that large changes no mask and no match, but one that grew on would leave the range of float32.
COORDINATE_LIMIT = 1e4


class Moved(NamedTuple):
    """Where n objects of the previous frame are in the current one."""

    boxes: Array  # (n, 4) xyxy, fractions of the padded frame
    mask_coeffs: Array  # (n, P) before tanh


def move(tracks: TrackedInstances, box_deltas: Array, coeff_deltas: Array) -> Moved:
    """Apply the temporal network's answer (paper eq. 12 and 13).

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
    """Every object in the current frame, with its mask there (paper eq. 14).

    Args:
        tracks: n objects as of the previous frame.
        moved: the same objects.
        prototypes: (Hm, Wm, P) of the current frame, at least inside the boxes of `moved`.
        score_decay: factor on the scores.

    Returns:
        The same objects: new boxes, coefficients and masks, scores decayed, ages one higher; the rest as it was.
    """
    before = tracks.instances
    instances = before.replace(boxes=moved.boxes, mask_coeffs=moved.mask_coeffs,
                               masks=assemble_masks(prototypes, moved.mask_coeffs, moved.boxes),
                               scores=before.scores * np.float32(score_decay))
    return tracks.replace(instances=instances, ages=tracks.ages + 1)
