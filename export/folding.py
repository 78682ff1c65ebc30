"""Folding batch normalisation into the weights of the deformable convolutions before it."""
from __future__ import annotations

import copy

import torch
from torch import nn

from stmask_deploy.models.backbone import Bottleneck, ModulatedDeformConv
from stmask_deploy.models.stmask import STMask


def fold_deformable(model: STMask) -> STMask:
    """An equivalent copy of `model` without these normalisations; parameters keep their names.

    onnxsim and all runtimes fold normalisation after ordinary convolutions, but no tool does so for `DeformConv`.
    """
    folded = copy.deepcopy(model)
    for block in folded.modules():
        if isinstance(block, Bottleneck) and isinstance(block.conv2, ModulatedDeformConv):
            _fold(block.conv2, block.bn2)
            block.add_module("bn2", nn.Identity())
    return folded


@torch.no_grad()
def _fold(conv: ModulatedDeformConv, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    conv.weight.copy_(conv.weight * factor[:, None, None, None])
    conv.bias.copy_((conv.bias - norm.running_mean.double()) * factor + norm.bias)
