"""Embedding loss: pulls embeddings of one identity together and pushes others apart."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPERATURE = 0.1  # of the contrastive loss: a cosine larger by this much is e times as likely


def embedding_loss(embeddings: Tensor, track_ids: Tensor, frames: Tensor) -> Tensor:
    """Cosine and contrastive loss between anchors and the mean embedding of every object in every frame of a batch.

    An anchor is pulled towards its own object's mean in each frame (1 - cos). It must also distinguish each of those
    from all other objects' means: cross-entropy over cosines divided by `TEMPERATURE` (InfoNCE), in which the most
    similar others count most. The others include those of all videos in the batch: within one video, objects could be
    distinguished by position alone, and an object that returns elsewhere would not be recognised.

    Args:
        embeddings: (n, E) unit length, of the positive anchors of all frames.
        track_ids: (n,) int64 identity of each anchor.
        frames: (n,) int64 index in the batch of the frame that each anchor belongs to.

    Returns:
        Scalar; 0 without anchors.
    """
    if not len(embeddings):
        return embeddings.sum()
    keys, groups = torch.stack([track_ids, frames], dim=1).unique(dim=0, return_inverse=True)
    sums = embeddings.new_zeros(len(keys), embeddings.shape[1]).index_add(0, groups, embeddings)
    with torch.autocast(embeddings.device.type, enabled=False):  # even if the network runs in 16 bits
        cosines = embeddings @ F.normalize(sums, dim=1).T  # (n, groups)
    same = track_ids[:, None] == keys[None, :, 0]
    logits = cosines / TEMPERATURE
    others = logits.masked_fill(same, -torch.inf).logsumexp(dim=1, keepdim=True)
    contrast = torch.logaddexp(logits, others) - logits
    return (1 - cosines + contrast)[same].mean()
