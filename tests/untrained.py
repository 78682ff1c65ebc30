"""Untrained weights that keep a network's activations in a useful range, for tests.

Such a network's detections are meaningless, but it detects something in every frame and tracks it.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stmask_deploy.config import ModelConfig
from stmask_deploy.models.calibration import CalibratedPrediction, SameConv
from stmask_deploy.models.frames import prepare_frames
from stmask_deploy.models.head import PredictionHead
from stmask_deploy.models.stmask import STMask, build_stmask

CANDIDATE_THRESHOLD = 0.05  # released: anchors whose highest foreground probability exceeds it are candidates
OFFSET_STD = 0.25  # cells; larger random offsets would turn rounding errors of positions into errors of values
Run = Callable[[], object]


def build_untrained(
    config: ModelConfig, frames: Sequence[NDArray[np.uint8]], *, candidate_share: float = 0.01, seed: int = 0
) -> STMask:
    """A network with seeded random weights, scaled layer by layer to the given frames, in evaluation mode.

    Args:
        config: the network; its hidden layers preserve variance by initialisation, its output layers are rescaled.
        frames: (H, W, 3) BGR of `config.input_size`, at least one; statistics are computed over them.
        candidate_share: fraction of the anchors of these frames that become candidates.
        seed: of the weights.
    """
    batch = prepare_frames(torch.from_numpy(np.stack(frames)), config)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = build_stmask(config)
        for module in model.modules():
            _init(module)
        _take_batch_statistics(model, batch)
        _scale_outputs(model, lambda: model(batch))
        _set_background(model, batch, candidate_share)
        _scale_temporal(model, batch)
    return model


def _init(module: nn.Module) -> None:
    """He initialisation, which keeps the variance of activations through ReLU."""
    weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor) and weight.ndim > 1:
        nn.init.normal_(weight, std=math.sqrt(2 / weight[0].numel()))
        bias = getattr(module, "bias", None)
        if isinstance(bias, Tensor):
            nn.init.zeros_(bias)


def _take_batch_statistics(model: STMask, batch: Tensor) -> None:
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
    model.train()
    model.backbone(batch)
    model.eval()


def _scale_outputs(model: STMask, run: Run) -> None:
    """Rescale every layer whose output scale matters, in order of data flow."""
    for name, module in model.named_modules():
        if name.endswith("conv_offset_mask"):
            _rescale(module, run, std=OFFSET_STD)
    _rescale(model.proto_net[10], run, std=1.0)
    head = model.prediction_layers[0]
    assert isinstance(head, PredictionHead)
    for layer in head.bbox_layer:
        _rescale(layer, run, std=1.0)
    for layer in head.centerness_layer:
        _rescale(layer, run, std=0.3, mean=1.5)  # tanh of it: near 1, never negative
    for layers, std in ((head.conf_layer, 2.5), (head.mask_layer, 0.6), (head.track_layer, 1.0)):
        for layer in layers:
            if isinstance(layer, CalibratedPrediction):
                if hasattr(layer, "conv_offset"):
                    _rescale(layer.conv_offset, run, std=OFFSET_STD)
                layer = layer.conv
            _rescale(layer, run, std=std)


def _rescale(layer: nn.Module, run: Run, std: float, mean: float = 0.0) -> None:
    """Scale and shift a layer so that its outputs during `run` have this standard deviation and per-channel mean."""
    outputs: list[Tensor] = []
    handle = layer.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    run()
    handle.remove()
    channels = outputs[0].shape[1]
    values = torch.cat([output.movedim(1, 0).reshape(channels, -1) for output in outputs], dim=1)  # (O, samples)
    means = values.mean(dim=1)
    factor = std / float((values - means[:, None]).std().clamp(min=1e-6))
    weight = layer.weight
    assert isinstance(weight, Tensor)
    weight.mul_(factor)
    if isinstance(layer.bias, Tensor):
        layer.bias.copy_((layer.bias - means) * factor + mean)


def _set_background(model: STMask, batch: Tensor, share: float) -> None:
    """Set the background bias so that only a fraction `share` of the anchors passes the candidate threshold."""
    logits = model(batch).anchors.class_probs.flatten(0, 1).double().log()  # (anchors, classes), up to a constant each
    foreground = logits[:, 1:]
    # An anchor passes while exp(bias) * p_background < p_best / threshold - sum of the foreground.
    room = foreground.max(dim=1).values.exp() / CANDIDATE_THRESHOLD - foreground.exp().sum(dim=1)
    limit = room.clamp(min=1e-12).log() - logits[:, 0]
    bias = float(torch.quantile(limit, 1 - share))
    head = model.prediction_layers[0]
    assert isinstance(head, PredictionHead)
    for layer in head.conf_layer:
        last = layer.conv if isinstance(layer, CalibratedPrediction) else layer
        assert isinstance(last, SameConv) and last.bias is not None
        num_scales = last.bias.numel() // logits.shape[1]
        last.bias.view(num_scales, -1)[:, 0] += bias


def _scale_temporal(model: STMask, batch: Tensor) -> None:
    """Keep deltas small: an object moves by a few percent of its size from frame to frame."""
    if not hasattr(model, "TemporalNet"):
        return
    maps = model(batch)
    grid = torch.linspace(0, 0.75, 4)
    corners = torch.cartesian_prod(grid, grid)  # (16, 2)
    boxes = torch.cat([corners, corners + 0.25], dim=1)

    def run() -> object:
        return model.TemporalNet(maps.fpn[-1:], maps.fpn[-1:], maps.temporal[-1:], maps.temporal[-1:], boxes)

    _rescale(model.TemporalNet.fc, run, std=0.1)
    _rescale(model.TemporalNet.fc_coeff, run, std=0.02)
