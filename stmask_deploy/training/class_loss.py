"""Classification loss with hard negative mining."""
from __future__ import annotations

import torch
from torch import Tensor

from .matching import BACKGROUND

NEGATIVES_PER_POSITIVE = 3  # as in SSD and YOLACT
SMALLEST_PROBABILITY = 1e-12


def class_loss(probs: Tensor, classes: Tensor) -> Tensor:
    """Sum of the cross-entropy over the positive anchors and the hardest background anchors, three times as many as
    positives (online hard example mining, 3:1). A frame without positives uses as many negatives as one with a single
    positive.

    Args:
        probs: (N, classes including background first) softmaxed.
        classes: (N,) int64: 1-based class of positive anchors, BACKGROUND (-1), or anything lower for neutral ones.
    """
    positive, negative = classes > 0, classes == BACKGROUND
    log_background = -probs[:, 0].clamp(min=SMALLEST_PROBABILITY).log()
    positive_losses = -probs[positive].gather(1, classes[positive, None]).clamp(min=SMALLEST_PROBABILITY).log()
    count = min(NEGATIVES_PER_POSITIVE * max(int(positive.sum()), 1), int(negative.sum()))
    hardest = log_background[negative].topk(count).values if count else torch.zeros_like(log_background[:0])
    return positive_losses.sum() + hardest.sum()
