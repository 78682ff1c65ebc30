"""The optimizer of a run, and its state in a snapshot."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .options import TrainingOptions

SETTINGS = ("betas", "eps", "momentum", "weight_decay")  # of optimizers, those that a run never changes
ADAM_BETAS = (0.9, 0.99)  # the second is lower than usual, because gradients shrink fast in the short runs it is for


def make_optimizer(model: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    """AdamW or SGD over all trainable parameters; no weight decay for biases and norms."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [{"params": [one for one in learning if one.ndim > 1], "weight_decay": options.weight_decay},
              {"params": [one for one in learning if one.ndim <= 1], "weight_decay": 0.0}]
    if options.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=options.learning_rate, betas=ADAM_BETAS)
    return torch.optim.SGD(groups, lr=options.learning_rate, momentum=options.momentum)


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """`optimizer.load_state_dict` for a state of the same options; PyTorch's takes settings and shapes on trust.

    Raises:
        Exception: it is of something else. PyTorch raises various exceptions too.
    """
    for own, saved in zip(optimizer.param_groups, state["param_groups"], strict=True):
        if any(saved[name] != own[name] for name in SETTINGS if name in own):
            raise ValueError("other settings")
    optimizer.load_state_dict(dict(state))
    for parameter, values in optimizer.state.items():
        if any(isinstance(one, Tensor) and one.ndim and one.shape != parameter.shape for one in values.values()):
            raise ValueError("other shapes")
