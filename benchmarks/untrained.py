"""Write a checkpoint with random weights, of a network whose trained weights are not at hand; speed needs no others.

    python benchmarks/untrained.py R50.pth
    python benchmarks/untrained.py ADA.pth --class-calibration adaptive

The network has the released size (ResNet-50, 360x640). Its weights are scaled so that activations keep a useful range:
its detections are meaningless, but it detects something in every frame and tracks it. The same command writes the same
weights wherever PyTorch computes the same values.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stmask_deploy.atomic import atomic_file
from stmask_deploy.classes import YTVIS_2019
from stmask_deploy.config import Calibration, ModelConfig
from stmask_deploy.console import Command
from stmask_deploy.models.calibration import CalibratedPrediction, SameConv
from stmask_deploy.models.checkpoint import CONFIG_KEY
from stmask_deploy.models.frames import prepare_frames
from stmask_deploy.models.head import PredictionHead
from stmask_deploy.models.stmask import STMask, build_stmask
from stmask_deploy.models.torch_file import save_tensors
from stmask_deploy.synthetic.clips import render

CANDIDATE_THRESHOLD = 0.05  # released: anchors whose highest foreground probability exceeds it are candidates
OFFSET_STD = 0.25  # cells; larger random offsets would turn rounding errors of positions into errors of values
# Every second block of C3 to C5, as in the released networks with deformable convolution.
DEFORMABLE_BLOCKS = ((1, 0), (1, 2), (2, 0), (2, 2), (2, 4), (3, 0), (3, 2))
NUM_FRAMES = 2  # generated frames that weights are scaled to
Run = Callable[[], object]


@click.command(cls=Command)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--deformable/--no-deformable", default=True, show_default=True, help="Deformable convolution.")
@click.option("--class-calibration", type=click.Choice([kind.value for kind in Calibration]), default="none",
              show_default=True, help="Feature calibration of the class branch.")
@click.option("--candidate-share", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.0001,
              show_default=True, help="Share of the anchors that become candidates.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace CHECKPOINT if it exists.")
def main(checkpoint: Path, deformable: bool, class_calibration: str, candidate_share: float, seed: int,
         overwrite: bool) -> None:
    """Write CHECKPOINT, an untrained network for stmask-export."""
    config = ModelConfig(YTVIS_2019, deformable_blocks=DEFORMABLE_BLOCKS if deformable else (),
                         class_calibration=Calibration(class_calibration))
    frames = list(render("val", 0, NUM_FRAMES, config.input_size).pictures())
    with atomic_file(checkpoint, overwrite=overwrite) as file:
        model = build_untrained(config, frames, candidate_share=candidate_share, seed=seed)
        save_tensors({"state_dict": model.state_dict(), CONFIG_KEY: config.to_dict()}, file)
    click.echo(f"{checkpoint}: {config.variant}, {sum(one.numel() for one in model.parameters()) / 1e6:.1f} million "
               "parameters")


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


if __name__ == "__main__":
    main()
