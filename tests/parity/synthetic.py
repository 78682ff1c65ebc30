"""Checkpoints without training, the same on every machine: the weights behind the recorded values.

Every value depends on the parameter's name and shape alone, and for the class layers on the background's bias.
"""
from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stmask_deploy.config import ModelConfig
from stmask_deploy.models.stmask import build_stmask

# Part of a name -> factor on He initialisation; the first that fits decides.
WEIGHT_GAINS = {".bbox_layer.": 0.3, ".centerness_layer.": 0.3, ".mask_layer.": 0.15, "conv_offset_mask": 0.35,
                ".conv_offset.": 0.6, "TemporalNet.fc.": 0.05, "TemporalNet.fc_coeff.": 0.1, "conv_adaption": 1.0,
                ".conf_layer.": 0.3, "proto_net.10": 0.6}
BIAS_SHIFTS = {".centerness_layer.": 1.0, ".mask_layer.": 0.7}


def draw(name: str, shape: tuple[int, ...], background_bias: float) -> Tensor:
    """Values of one entry of a state dict."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    kind = name.rpartition(".")[2]
    if kind == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.int64)
    if kind == "running_var":
        values = 1 + 0.2 * random.random_sample(shape)
    elif kind == "running_mean":
        values = 0.05 * random.standard_normal(shape)
    elif kind == "bias":
        values = 0.05 * random.standard_normal(shape) + _first(BIAS_SHIFTS, name, 0.0)
        if ".conf_layer." in name:
            values[0] += background_bias
    elif len(shape) == 1:  # the scale of a batch normalisation, small on the residual branch
        values = (0.3 if ".bn3." in name else 1.0) * (1 + 0.1 * random.standard_normal(shape))
    else:
        values = random.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:])) * _first(WEIGHT_GAINS, name, 1.0)
    return torch.from_numpy(np.asarray(values, np.float32))


def _first(table: dict[str, float], name: str, default: float) -> float:
    return next((value for part, value in table.items() if part in name), default)


def write_checkpoint(path: Path, config: ModelConfig, background_bias: float) -> None:
    """Save a checkpoint as the released ones are: a plain state dict, without its configuration."""
    with torch.device("meta"):
        entries = build_stmask(config).state_dict()
    torch.save({name: draw(name, tuple(value.shape), background_bias) for name, value in entries.items()}, path)
