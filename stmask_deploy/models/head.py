"""Prediction head, with weights shared by all pyramid levels."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

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
    joined = torch.cat([values.permute(0, 2, 3, 1) for values in maps], dim=3)  # (B, H, W, kernels * S * size)
    return joined.reshape(batch, height * width * len(maps) * (channels // size), size)


class PredictionHead(nn.Module):
    """Boxes, centerness, classes, mask coefficients and embeddings of every anchor.

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
        self.num_scales, self.anchors_per_cell = num_scales, num_scales * len(kernels)
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

    def forward(self, levels: Sequence[Tensor]) -> tuple[AnchorPredictions, tuple[Tensor, ...]]:
        """(B, F, H, W) map of every pyramid level -> predictions of their anchors, and each level's shared map
        (B, width, H, W)."""
        shared = tuple(self.upfeature(level) for level in levels)
        # What is done to single rows is done to those of all levels at once, which takes fewer steps.
        boxes, probs, coeffs, embeddings = (torch.cat(rows, dim=1)
                                            for rows in zip(*map(self._rows, shared), strict=True))
        num_deltas = 4 * self.num_scales
        predictions = AnchorPredictions(
            box_deltas=boxes[..., :num_deltas].reshape(len(boxes), -1, 4),
            class_probs=probs.softmax(dim=-1),
            centerness=self._paired(boxes[..., num_deltas:].flatten(1), levels).tanh(),
            mask_coeffs=coeffs,
            embeddings=F.normalize(embeddings, dim=-1),
        )
        return predictions, shared

    def _rows(self, shared: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The values of a level: boxes with centerness, one row for all scales of a kernel; classes, mask coefficients
        and embeddings, one row per anchor."""
        classes, masks, tracks = self.conf_extra(shared), self.mask_extra(shared), self.track_extra(shared)
        boxes = self.box_maps(self.bbox_extra(shared))
        deltas = [one[:, :4 * self.num_scales] for one in boxes]
        probs = [layer(classes, delta) for layer, delta in zip(self.conf_layer, deltas, strict=True)]
        coeffs = [layer(masks, delta) for layer, delta in zip(self.mask_layer, deltas, strict=True)]
        embeddings = [layer(tracks, delta) for layer, delta in zip(self.track_layer, deltas, strict=True)]
        return (by_anchor(boxes, 5 * self.num_scales), by_anchor(probs, self.num_classes),
                by_anchor(coeffs, self.num_prototypes), by_anchor(embeddings, self.embedding_dim))

    def box_maps(self, boxes: Tensor) -> list[Tensor]:
        """(B, width, H, W) map of the box branch -> one (B, 5 * S, H, W) map per kernel: box deltas of all S scales,
        then their centerness."""
        return [torch.cat([deltas(boxes), centerness(boxes)], dim=1)
                for deltas, centerness in zip(self.bbox_layer, self.centerness_layer, strict=True)]

    def _paired(self, centerness: Tensor, levels: Sequence[Tensor]) -> Tensor:
        """(B, N) centerness in the order of the anchors -> in the order in which it is paired with them."""
        if self.centerness_order is CenternessOrder.ANCHOR:
            return centerness
        # The released code flattens a level's maps kernel by kernel, then treats them as if they were in anchor order.
        starts = [0, *accumulate(self.anchors_per_cell * level.shape[2:].numel() for level in levels)]
        places = [torch.arange(first, end, device=centerness.device).view(-1, self.anchors_per_cell).t().flatten()
                  for first, end in pairwise(starts)]
        return centerness.index_select(1, torch.cat(places))
