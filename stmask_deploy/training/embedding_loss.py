"""Embeddings: one identity together, others apart."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 0.1  # of the contrast: a cosine this much larger is e times as likely


def embedding_loss(embeddings: Tensor, track_ids: Tensor, frames: Tensor) -> Tensor:
    """Cosine and contrastive loss between anchors and the mean embedding of every object in every frame of a batch.

    An anchor is drawn to its own object's mean in each frame (1 - cos), and has to tell each of those from all other
    objects' means: cross-entropy over cosines divided by `TEMPERATURE` (InfoNCE), in which the others that are most
    alike count most. Others are those of all videos of the batch: within one video, objects can be told apart by where
    they are, and an object that comes back elsewhere would not be known again.

    Args:
        embeddings: (n, E) unit length, of the positive anchors of all frames.
        track_ids: (n,) int64 identity of each.
        frames: (n,) int64 which frame of the batch it belongs to.

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
    logits = cosines / TEMPERATURE
    others = logits.masked_fill(same, -torch.inf).logsumexp(dim=1, keepdim=True)
    contrast = torch.logaddexp(logits, others) - logits
    return (1 - cosines + contrast)[same].mean()
