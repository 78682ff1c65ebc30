"""Prediction head, with weights shared by all pyramid levels."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..config import Calibration, CenternessOrder
from .calibration import CalibratedPrediction, KernelShape, PlainPrediction, SameConv


@dataclass(frozen=True)
class AnchorPredictions:
    """Raw predictions of all N anchors, ordered by level, row, column, kernel, scale."""

    box_deltas: Tensor  # (B, N, 4) d_x, d_y, d_w, d_h
    class_probs: Tensor  # (B, N, classes including background first), softmax
    centerness: Tensor  # (B, N) tanh, in the order used to pair it with anchors (see CenternessOrder)
    mask_coeffs: Tensor  # (B, N, P) before tanh
    embeddings: Tensor  # (B, N, E) unit length


def tower(channels: int, depth: int) -> nn.Sequential:
    """`depth` pairs of 3x3 convolution and ReLU."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)


def by_anchor(maps: Sequence[Tensor], size: int) -> Tensor:
    """One (B, S * size, H, W) map per kernel -> (B, H * W * kernels * S, size)."""
    batch, channels, height, width = maps[0].shape
    stacked = torch.stack([values.permute(0, 2, 3, 1) for values in maps], dim=3)  # (B, H, W, kernels, S * size)
    return stacked.reshape(batch, height * width * len(maps) * (channels // size), size)


class PredictionHead(nn.Module):
    """Boxes, centerness, classes, mask coefficients and embeddings of every anchor of a level.

    Args:
        in_channels: channels of the pyramid.
        width: channels of the shared map and the towers.
        tower_depth: number of 3x3 convolutions in each tower.
        kernels: (height, width) of each kernel shape (FCA).
        num_scales: anchors per kernel.
        num_classes: number of classes, including the background.
        num_prototypes: P.
        embedding_dim: E.
        class_calibration, mask_calibration, track_calibration: FCB of each branch.
        centerness_order: how a level's centerness maps are flattened.
    """

    def __init__(self, in_channels: int, width: int, tower_depth: int, kernels: Sequence[KernelShape], num_scales: int,
                 num_classes: int, num_prototypes: int, embedding_dim: int, class_calibration: Calibration,
                 mask_calibration: Calibration, track_calibration: Calibration,
                 centerness_order: CenternessOrder) -> None:
        super().__init__()
        self.num_classes, self.num_prototypes, self.embedding_dim = num_classes, num_prototypes, embedding_dim
        self.centerness_order = centerness_order

        def layers(size: int, kind: Calibration) -> nn.ModuleList:
            return nn.ModuleList(
                PlainPrediction(width, num_scales * size, kernel) if kind is Calibration.NONE
                else CalibratedPrediction(width, size, kernel, kind) for kernel in kernels)

        self.upfeature = nn.Sequential(nn.Conv2d(in_channels, width, 3, padding=1), nn.ReLU())
        self.bbox_layer = nn.ModuleList(SameConv(width, num_scales * 4, kernel) for kernel in kernels)
        self.track_layer = layers(embedding_dim, track_calibration)
        self.mask_layer = layers(num_prototypes, mask_calibration)
        self.centerness_layer = nn.ModuleList(SameConv(width, num_scales, kernel) for kernel in kernels)
        self.conf_layer = layers(num_classes, class_calibration)
        self.track_extra = tower(width, tower_depth)
        self.conf_extra = tower(width, tower_depth)
        self.bbox_extra = tower(width, tower_depth)
        self.mask_extra = tower(width, tower_depth)

    def forward(self, features: Tensor) -> tuple[AnchorPredictions, Tensor]:
        """(B, F, H, W) pyramid map -> predictions of its anchors, and the shared map (B, width, H, W)."""
        shared = self.upfeature(features)
        boxes, classes = self.bbox_extra(shared), self.conf_extra(shared)
        masks, tracks = self.mask_extra(shared), self.track_extra(shared)
        deltas = [layer(boxes) for layer in self.bbox_layer]
        probs = [layer(classes, delta) for layer, delta in zip(self.conf_layer, deltas, strict=True)]
        coeffs = [layer(masks, delta) for layer, delta in zip(self.mask_layer, deltas, strict=True)]
        embeddings = [layer(tracks, delta) for layer, delta in zip(self.track_layer, deltas, strict=True)]
        centerness = [layer(boxes) for layer in self.centerness_layer]
        predictions = AnchorPredictions(
            box_deltas=by_anchor(deltas, 4),
            class_probs=by_anchor(probs, self.num_classes).softmax(dim=-1),
            centerness=self._flatten_centerness(centerness).tanh(),
            mask_coeffs=by_anchor(coeffs, self.num_prototypes),
            embeddings=F.normalize(by_anchor(embeddings, self.embedding_dim), dim=-1),
        )
        return predictions, shared

    def _flatten_centerness(self, maps: Sequence[Tensor]) -> Tensor:
        """One (B, S, H, W) map per kernel -> (B, H * W * kernels * S)."""
        if self.centerness_order is CenternessOrder.ANCHOR:
            return by_anchor(maps, 1).squeeze(-1)
        # The released code flattens kernel by kernel, then treats the result as if it were in anchor order.
        return torch.cat([one.flatten(1) for one in maps], dim=1)
