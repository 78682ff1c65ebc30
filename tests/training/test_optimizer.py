from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_training import CALIBRATED, OPTIONS
from torch import nn

from stmask_deploy.training.optimizer import make_optimizer
from stmask_deploy.training.weights import from_scratch


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_biases_and_norms_do_not_decay(optimizer: str) -> None:
    model = from_scratch(CALIBRATED)
    model.backbone.bn1.requires_grad_(False)
    decays = {id(value): group["weight_decay"]
              for group in make_optimizer(model, replace(OPTIONS, optimizer=optimizer)).param_groups
              for value in group["params"]}
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    for name, value in model.named_parameters():
        owner, kind = name.rsplit(".", 1)
        if owner == "backbone.bn1":
            assert id(value) not in decays
        else:
            assert decays[id(value)] == (0 if kind == "bias" or owner in norms else OPTIONS.weight_decay), name
