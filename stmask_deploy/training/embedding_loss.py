"""Embeddings: one identity together, others apart."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def embedding_loss(embeddings: Tensor, track_ids: Tensor, frames: Tensor) -> Tensor:
    """Cosine embedding loss between anchors and the mean embedding of every object, within and across frames.

    An anchor is drawn to its own object's mean in each frame (1 - cos) and pushed from all others' (max(0, cos)); the
    two are averaged apart, so that neither drowns the other. The tracker maps the cosine to (cos + 1) / 2 and counts
    one half as "no evidence", which is where others end up.

    Args:
        embeddings: (n, E) unit length, of the positive anchors of both frames of a pair.
        track_ids: (n,) int64 identity of each.
        frames: (n,) int64 0 or 1.

    Returns:
        scalar; 0 without anchors.
    """
    if not len(embeddings):
        return embeddings.sum()
    keys, groups = torch.stack([track_ids, frames], dim=1).unique(dim=0, return_inverse=True)
    sums = embeddings.new_zeros(len(keys), embeddings.shape[1]).index_add(0, groups, embeddings)
    with torch.autocast(embeddings.device.type, enabled=False):  # also where the network runs in 16 bits
        cosines = embeddings @ F.normalize(sums, dim=1).T  # (n, groups)
    same = track_ids[:, None] == keys[None, :, 0]
    together, apart = (1 - cosines)[same].mean(), cosines.clamp(min=0)[~same]
    return together + (apart.mean() if len(apart) else 0)
