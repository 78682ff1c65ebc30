"""Converts pictures to the network's input: colour, normalisation, padding."""
from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..config import ModelConfig


def prepare_frames(frames: Tensor, config: ModelConfig) -> Tensor:
    """(B, H, W, 3) BGR of `config.input_size`, values in [0, 255] -> (B, 3, Hp, Wp) normalised RGB, zero padded."""
    rgb = frames.float().permute(0, 3, 1, 2).flip(1)
    mean, std = (rgb.new_tensor(values).view(1, 3, 1, 1) for values in (config.pixel_mean, config.pixel_std))
    (height, width), (padded_h, padded_w) = config.input_size, config.padded_size
    return F.pad((rgb - mean) / std, (0, padded_w - width, 0, padded_h - height))
