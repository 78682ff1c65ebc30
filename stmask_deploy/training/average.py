"""Exponential moving average of a network's weights."""
from __future__ import annotations

import copy

import torch

from ..models.stmask import STMask

WARMUP = 10  # updates over which the average leaves the first weights behind


class WeightAverage:
    """A copy of a network that follows it slowly; it is what is evaluated and kept.

    After n updates the decay is the smaller of `decay` and (1 + n) / (10 + n), so that short runs are not held back by
    their first weights. Counters are copied.
    """

    def __init__(self, model: STMask, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._decay = decay
        self.num_updates = 0

    @torch.no_grad()
    def update(self, model: STMask) -> None:
        """Move towards `model`."""
        decay = min(self._decay, (1 + self.num_updates) / (WARMUP + self.num_updates))
        self.num_updates += 1
        for mine, other in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(other, 1 - decay)
            else:
                mine.copy_(other)
