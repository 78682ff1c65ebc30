"""Graphs as a straightforward export would produce them, for comparison."""
from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stmask_deploy.bundle import TEMPORAL_INPUTS, TEMPORAL_OUTPUTS
from stmask_deploy.config import ModelConfig
from stmask_deploy.export.onnx_model import export_module
from stmask_deploy.export.temporal_graph import example_inputs
from stmask_deploy.models.frames import prepare_frames
from stmask_deploy.models.head import AnchorPredictions
from stmask_deploy.models.stmask import STMask
from stmask_deploy.models.temporal import LEAKY_SLOPE


class RawHeads(nn.Module):
    """The frame network with the raw outputs of its heads for every anchor: all selection is left to the host."""

    def __init__(self, model: STMask, config: ModelConfig) -> None:
        super().__init__()
        self.model, self.config = model, config

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        """uint8 (1, H, W, 3) BGR -> the fields of `AnchorPredictions`, prototypes, and maps for the temporal graph."""
        prediction = self.model(prepare_frames(frame, self.config))
        anchors = (getattr(prediction.anchors, entry.name) for entry in fields(AnchorPredictions))
        maps = () if self.config.temporal is None else (prediction.fpn, prediction.temporal)
        return (*anchors, prediction.prototypes, *maps)


class SlicedCorrelation(nn.Module):
    """The temporal graph with correlation as d*d shifted products, each a slice, a product and a mean."""

    def __init__(self, model: STMask) -> None:
        super().__init__()
        self.net = model.TemporalNet

    def forward(self, prev_fpn: Tensor, fpn: Tensor, prev_temporal: Tensor, temporal: Tensor,
                boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Same inputs and outputs as `TemporalGraph`."""
        motion = F.leaky_relu(sliced_correlation(prev_fpn, fpn, self.net.patch_size), LEAKY_SLOPE)
        features = F.relu(torch.cat([motion, prev_temporal, temporal], dim=1))
        return self.net.predict(self.net.pool_boxes(features, boxes))


def sliced_correlation(prev: Tensor, cur: Tensor, patch_size: int) -> Tensor:
    """Equivalent to `ops.correlation`."""
    height, width = prev.shape[2:]
    padded = F.pad(cur, [patch_size // 2] * 4)
    return torch.stack([(prev * padded[:, :, i:i + height, j:j + width]).mean(1)
                        for i in range(patch_size) for j in range(patch_size)], dim=1)


def export_raw_heads(model: STMask, config: ModelConfig, path: Path) -> None:
    """Write the ONNX file of `RawHeads`."""
    maps = [] if config.temporal is None else ["fpn", "temporal"]
    names = [*(entry.name for entry in fields(AnchorPredictions)), "prototypes", *maps]
    frame = torch.zeros((1, *config.input_size, 3), dtype=torch.uint8)
    with torch.no_grad():
        onnx.save(export_module(RawHeads(model, config).eval(), [frame], ["frame"], names), path)


def export_sliced_correlation(model: STMask, config: ModelConfig, path: Path) -> None:
    """Write the ONNX file of `SlicedCorrelation`."""
    with torch.no_grad():
        graph = export_module(SlicedCorrelation(model).eval(), example_inputs(config), TEMPORAL_INPUTS,
                              TEMPORAL_OUTPUTS, dynamic={"boxes": {0: "N"}})
    onnx.save(graph, path)
