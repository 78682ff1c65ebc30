"""Networks of a few channels, ordinary in every other way, and their checkpoints."""
from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from stmask_deploy.config import ModelConfig, TemporalConfig
from stmask_deploy.models.stmask import STMask, build_stmask

CONFIG = ModelConfig(
    class_names=("class_1", "class_2"), stem_width=4, depths=(1, 1, 1, 1), widths=(2, 3, 4, 5), expansion=2,
    fpn_width=6, proto_width=5, num_prototypes=4, head_width=7, embedding_dim=8,
    temporal=TemporalConfig(patch_size=3, widths=(5, 6, 7)), input_size=(60, 90))


def tiny_config(**changes: Any) -> ModelConfig:
    """`CONFIG` with some fields changed; anchors follow the kernels unless they are given."""
    if "kernel_shapes" in changes and "anchor_shapes" not in changes:
        changes["anchor_shapes"] = tuple((float(h), float(w)) for h, w in changes["kernel_shapes"])
    return replace(CONFIG, **changes)


def random_model(config: ModelConfig, seed: int = 0) -> STMask:
    """The network with seeded weights of order one, so that every layer takes part in the result."""
    model = build_stmask(config)
    generator = torch.Generator().manual_seed(seed)
    for name, value in model.state_dict().items():
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=generator)
            fan_in = max(value[0].numel(), 1) if value.ndim > 1 else 4
            value.copy_(noise.abs() + 0.5 if name.endswith("running_var") else noise / fan_in**0.5)
    return model


def shapes_of(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in build_stmask(config).state_dict().items()}


def state_of(config: ModelConfig, seed: int = 0) -> dict[str, Tensor]:
    return dict(random_model(config, seed).state_dict())
