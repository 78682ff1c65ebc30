"""Objects of the previous frame carried into the current one by the temporal network's answer (paper section 3.2)."""
from __future__ import annotations

import numpy as np

from stmask_deploy.geometry import decode_boxes, xyxy_to_cxcywh
from stmask_deploy.types import Array, TrackedInstances

from .masks import assemble_masks

SCORE_DECAY = 0.95  # factor on the score for each frame an object is carried without being detected
# In frame sizes: a box that large changes no mask and no match, but one that grew on would leave the range of float32.
COORDINATE_LIMIT = 1e4


def propagate(tracks: TrackedInstances, box_deltas: Array, coeff_deltas: Array, prototypes: Array,
              score_decay: float = SCORE_DECAY) -> TrackedInstances:
    """Move every object to the current frame (paper eq. 12-14).

    Args:
        tracks: n objects as of the previous frame.
        box_deltas: (n, 4) d_x, d_y, d_w, d_h relative to the previous boxes.
        coeff_deltas: (n, P) added to the mask coefficients before tanh.
        prototypes: (Hm, Wm, P) of the current frame.
        score_decay: factor on the scores.

    Returns:
        The same objects: new boxes, coefficients and masks, scores decayed, ages one higher; the rest as it was.
    """
    if not len(tracks):  # a tracker that has seen no object yet does not know the number of coefficients
        return tracks
    before = tracks.instances
    boxes = np.clip(decode_boxes(box_deltas, xyxy_to_cxcywh(before.boxes)), -COORDINATE_LIMIT, COORDINATE_LIMIT)
    coeffs = before.mask_coeffs + coeff_deltas
    moved = before.replace(boxes=boxes, mask_coeffs=coeffs, masks=assemble_masks(prototypes, coeffs, boxes),
                           scores=before.scores * np.float32(score_decay))
    return tracks.replace(instances=moved, ages=tracks.ages + 1)
