"""Initial weights of a network: from scratch, or from a checkpoint."""
from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..classes import plain_name
from ..config import ModelConfig
from ..errors import InputError
from ..models.backbone import ModulatedDeformConv
from ..models.calibration import CalibratedPrediction
from ..models.checkpoint import load_checkpoint
from ..models.head import PredictionHead
from ..models.stmask import STMask, build_stmask
from ..models.torch_file import MAX_BYTES
from ..tracking_config import TrackingConfig

BACKGROUND_PRIOR = 0.99  # background probability predicted by an untrained class layer (RetinaNet, section 4.1)
OUTPUT_STD = 0.01  # of the weights of output layers
CENTERNESS_PRIOR = 0.5
CLASS_LAYER = re.compile(r"prediction_layers\.0\.conf_layer\.\d+\.(conv\.)?(weight|bias)")  # one row per class


def from_scratch(config: ModelConfig, seed: int = 0) -> STMask:
    """A network to train from scratch: He initialisation, small outputs, and background predicted everywhere.

    Raises:
        InputError: it has more than `torch_file.MAX_BYTES` of parameters.
    """
    with torch.device("meta"):
        num_bytes = sum(value.numel() * value.element_size() for value in build_stmask(config).state_dict().values())
    if num_bytes > MAX_BYTES:
        raise InputError(f"a network of {num_bytes / 2 ** 30:.0f} GiB of parameters; at most "
                         f"{MAX_BYTES >> 30} GiB can be trained")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build_stmask(config)
        for module in model.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                _he(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for module in model.modules():
            if isinstance(module, ModulatedDeformConv):
                _he(module.weight)
                nn.init.zeros_(module.conv_offset_mask.weight)
        _small_outputs(model)
    return model


def from_checkpoint(path: Path, class_names: tuple[str, ...], seed: int = 0, names_file: Path | None = None
                    ) -> tuple[STMask, ModelConfig, list[str]]:
    """A trained network adapted to the same or other classes; class layers are reinitialised if the classes differ.

    Args:
        path: any checkpoint that `stmask-export` accepts.
        class_names: of the dataset it will be trained on.
        seed: of reinitialised class layers.
        names_file: names of the checkpoint's own classes, see `read_class_names`; None uses the stored ones, or else
            those of the known dataset with the same number of classes.

    Returns:
        The network, its configuration, and what was changed, one line each.

    Raises:
        InputError: see `load_checkpoint` and `read_class_names`.
    """
    checkpoint = load_checkpoint(path)
    if names_file is not None:
        checkpoint = checkpoint.named(names_file)
    config, before = replace(checkpoint.config, class_names=class_names), checkpoint.config.class_names
    notes, state = list(checkpoint.notes), dict(checkpoint.state)
    model = from_scratch(config, seed)
    fresh = model.state_dict()
    class_layers = [name for name in fresh if CLASS_LAYER.fullmatch(name)]
    known, wanted = tuple(map(plain_name, before)), tuple(map(plain_name, class_names))
    if known == wanted:
        pass
    elif len(before) == len(class_names) and before == tuple(f"class_{i}" for i in range(1, len(before) + 1)):
        notes.append(f"class layers kept: as many classes, but other names ({', '.join(class_names[:3])}, ...)")
    elif sorted(known) == sorted(wanted) and len(set(known)) == len(known):
        order = torch.tensor([0, *(known.index(name) + 1 for name in wanted)])  # the background stays first
        state |= {name: _reordered(state[name], order) for name in class_layers}
        notes.append("class layers reordered: the dataset has the checkpoint's classes in another order")
    else:
        state |= {name: fresh[name] for name in class_layers}
        notes.append(f"class layers start anew: the checkpoint has {len(before)} classes, the dataset "
                     f"{len(class_names)} ({len(class_layers)} parameters)" if len(before) != len(class_names) else
                     f"class layers start anew: the checkpoint knows other classes ({', '.join(before[:3])}, ...)")
    model.load_state_dict(state)
    if config.tracking != TrackingConfig():
        notes.append(f"tracking stays the checkpoint's, which may not suit other clips: {config.own_tracking}")
    return model, config, notes


def _reordered(rows: Tensor, order: Tensor) -> Tensor:
    """(S * classes, ...) -> the same with the classes of every anchor scale reordered."""
    scales: Tensor = rows.unflatten(0, (-1, len(order)))[:, order]
    return scales.flatten(0, 1)


def _he(weight: Tensor) -> None:
    nn.init.normal_(weight, std=math.sqrt(2 / weight[0].numel()))


def _small_outputs(model: STMask) -> None:
    head = model.prediction_layers[0]
    assert isinstance(head, PredictionHead)
    layers = (head.bbox_layer, head.centerness_layer, head.conf_layer, head.mask_layer, head.track_layer)
    for layer in (one for group in layers for one in group):
        if isinstance(layer, CalibratedPrediction):
            if hasattr(layer, "conv_offset"):
                nn.init.zeros_(layer.conv_offset.weight)  # sampling starts at the anchor, not scattered around it
            _he(layer.conv_adaption.weight)
            layer = layer.conv
        assert isinstance(layer, nn.Conv2d)
        nn.init.normal_(layer.weight, std=OUTPUT_STD)
    for layer in head.centerness_layer:
        assert isinstance(layer.bias, Tensor)
        nn.init.constant_(layer.bias, math.atanh(CENTERNESS_PRIOR))
    odds = BACKGROUND_PRIOR / (1 - BACKGROUND_PRIOR) * (head.num_classes - 1)
    for layer in head.conf_layer:
        bias = layer.conv.bias if isinstance(layer, CalibratedPrediction) else layer.bias
        assert isinstance(bias, Tensor)
        with torch.no_grad():
            bias.view(-1, head.num_classes)[:, 0] = math.log(odds)  # one row per anchor scale
    for name in ("fc", "fc_coeff"):
        if hasattr(model, "TemporalNet"):
            nn.init.normal_(getattr(model.TemporalNet, name).weight, std=OUTPUT_STD)
