"""Exponential moving average of a network's weights."""
from __future__ import annotations

import copy

import torch

from ..models.stmask import STMask

WARMUP = 10  # limits the decay during the first updates


class WeightAverage:
    """A copy of a network that tracks its weights by an exponential moving average; it is what is evaluated and saved.

    After n updates the decay is the smaller of `decay` and (1 + n) / (10 + n), so that short runs are not dominated by
    the initial weights. Integer buffers (counters) are copied.
    """

    def __init__(self, model: STMask, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self._decay = decay
        self.num_updates = 0

    @torch.no_grad()
    def update(self, model: STMask) -> None:
        """Move the average towards `model`."""
        decay = min(self._decay, (1 + self.num_updates) / (WARMUP + self.num_updates))
        self.num_updates += 1
        for mine, other in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(other, 1 - decay)
            else:
                mine.copy_(other)
