"""The network with its losses: takes a batch of frame pairs, returns one value per loss."""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..config import ModelConfig
from ..geometry import cxcywh_to_xyxy, make_anchors
from ..models.frames import prepare_frames
from ..models.stmask import FramePrediction, STMask
from .box_losses import centerness_targets, delta_loss, overlap_loss
from .class_loss import class_loss
from .embedding_loss import embedding_loss
from .mask_losses import mask_loss
from .matching import AnchorMatch, match_anchors
from .options import TrainingOptions
from .targets import FrameTargets, PairBatch

MOST_MASKS = 100  # anchors per frame whose masks are trained, a random sample if there are more (as in YOLACT)


class PairLearner(nn.Module):
    """STMask in training. A data-parallel wrapper calls `forward`.

    Args:
        model: the network.
        config: its configuration.
        options: thresholds for matching, and the jitter of boxes.
    """

    anchors: Tensor
    corners: Tensor

    def __init__(self, model: STMask, config: ModelConfig, options: TrainingOptions) -> None:
        super().__init__()
        self.model, self.config, self.options = model, config, options
        anchors = make_anchors(config.level_sizes, config.anchor_shapes, config.anchor_scales)
        self.register_buffer("anchors", torch.from_numpy(anchors), persistent=False)  # (N, 4) cxcywh
        self.register_buffer("corners", torch.from_numpy(cxcywh_to_xyxy(anchors)), persistent=False)

    def forward(self, batch: PairBatch) -> dict[str, Tensor]:
        """Unweighted losses, named as in `LossWeights`; those of TemporalNet only if the network has one."""
        frames = prepare_frames(torch.cat([batch.first, batch.second]), self.config)
        frames = frames.contiguous(memory_format=torch.channels_last)
        prediction = self.model(frames)
        targets = (*batch.first_targets, *batch.second_targets)
        matches = [match_anchors(self.corners, one, self.options.positive_iou, self.options.negative_iou)
                   for one in targets]
        losses = self._frame_losses(prediction, targets, matches)
        losses["embeddings"] = self._embedding_loss(prediction, targets, matches)
        if self.config.temporal is not None:
            losses |= self._temporal_losses(prediction, batch, matches)
        return losses

    def _frame_losses(self, prediction: FramePrediction, targets: Sequence[FrameTargets],
                      matches: Sequence[AnchorMatch]) -> dict[str, Tensor]:
        anchors = prediction.anchors
        sums: dict[str, list[Tensor]] = {name: [] for name in ("classes", "boxes", "overlap", "centerness", "masks")}
        positives, learned_masks = 0, 0
        for i, (target, match) in enumerate(zip(targets, matches, strict=True)):
            rows = match.positive
            objects = match.objects[rows]
            classes = match.objects.clone()
            classes[rows] = target.class_ids[objects]
            sums["classes"].append(class_loss(anchors.class_probs[i].float(), classes))
            priors, boxes = self.anchors[rows], target.boxes[objects]
            deltas = anchors.box_deltas[i][rows].float()
            sums["boxes"].append(delta_loss(deltas, boxes, priors).sum())
            sums["overlap"].append(overlap_loss(deltas, boxes, priors).sum())
            centerness = anchors.centerness[i][rows].float()
            sums["centerness"].append((centerness - centerness_targets(boxes, priors)).abs().sum())
            chosen = torch.randperm(len(rows), device=rows.device)[:MOST_MASKS]
            coeffs = anchors.mask_coeffs[i][rows[chosen]].float()
            sums["masks"].append(mask_loss(prediction.prototypes[i].float(), coeffs, target.masks[objects[chosen]],
                                           boxes[chosen]).sum())
            positives, learned_masks = positives + len(rows), learned_masks + len(chosen)
        counts = dict.fromkeys(sums, max(positives, 1)) | {"masks": max(learned_masks, 1)}
        return {name: torch.stack(parts).sum() / counts[name] for name, parts in sums.items()}

    def _embedding_loss(self, prediction: FramePrediction, targets: Sequence[FrameTargets],
                        matches: Sequence[AnchorMatch]) -> Tensor:
        embeddings, ids, frames = [], [], []
        for i, (target, match) in enumerate(zip(targets, matches, strict=True)):
            rows = match.positive
            embeddings.append(prediction.anchors.embeddings[i][rows].float())
            ids.append(target.track_ids[match.objects[rows]])
            frames.append(torch.full_like(ids[-1], i))
        return embedding_loss(torch.cat(embeddings), torch.cat(ids), torch.cat(frames))

    def _temporal_losses(self, prediction: FramePrediction, batch: PairBatch,
                         matches: Sequence[AnchorMatch]) -> dict[str, Tensor]:
        """From true boxes in the first frame to boxes and masks of the same objects in the second (eq. 10-14)."""
        net, pairs = self.model.TemporalNet, len(batch.first_targets)
        fused = net.fuse(prediction.fpn[:pairs], prediction.fpn[pairs:], prediction.temporal[:pairs],
                         prediction.temporal[pairs:])
        pooled, starts, ends, links = [], [], [], []
        for pair, (before, after) in enumerate(zip(batch.first_targets, batch.second_targets, strict=True)):
            is_near = batch.gaps[pair] <= self.options.max_shift_gap
            is_same = before.track_ids[:, None] == after.track_ids[None, :]
            rows, partners = (is_same & is_near).nonzero(as_tuple=True)
            boxes = self._jitter(before.boxes[rows])
            pooled.append(net.pool_boxes(fused[pair:pair + 1], boxes))
            starts.append(boxes)
            ends.append(after.boxes[partners])
            links.append((rows, partners))
        box_deltas, coeff_deltas = (one.float() for one in net.predict(torch.cat(pooled)))
        start, end = torch.cat(starts), torch.cat(ends)
        count = max(len(start), 1)
        priors = torch.cat([(start[:, :2] + start[:, 2:]) / 2, start[:, 2:] - start[:, :2]], dim=1)
        shift = (delta_loss(box_deltas, end, priors) + overlap_loss(box_deltas, end, priors)).sum() / count
        mask_sums, offset = [], 0
        for pair, (rows, partners) in enumerate(links):
            target = batch.second_targets[pair]
            best, found = best_anchors(matches[pair], len(batch.first_targets[pair]))
            coeffs = prediction.anchors.mask_coeffs[pair][best[rows]].float()
            coeffs = coeffs.detach() + coeff_deltas[offset:offset + len(rows)]
            parts = mask_loss(prediction.prototypes[pairs + pair].float(), coeffs, target.masks[partners],
                              target.boxes[partners])
            mask_sums.append(parts[found[rows]].sum())
            offset += len(rows)
        return {"box_shift": shift, "mask_shift": torch.stack(mask_sums).sum() / count}

    def _jitter(self, boxes: Tensor) -> Tensor:
        """Imitate detected boxes: each side is moved by a random fraction of the box's size."""
        sizes = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
        moved: Tensor = boxes + self.options.box_jitter * sizes * torch.randn_like(boxes).clamp(-2, 2)
        return torch.cat([torch.minimum(moved[:, :2], moved[:, 2:]),
                          torch.maximum(moved[:, :2], moved[:, 2:]) + 1e-3], dim=1)


def best_anchors(match: AnchorMatch, count: int) -> tuple[Tensor, Tensor]:
    """The anchor with the highest IoU for each of `count` objects.

    Returns:
        (g,) anchor indices, and (g,) whether the object has an anchor. If two objects share their best anchor, the
        earlier one may have none, and its index is meaningless.
    """
    rows = match.positive
    overlaps = torch.full((count, len(rows)), -1.0, device=rows.device)
    overlaps[match.objects[rows], torch.arange(len(rows), device=rows.device)] = match.overlaps[rows]
    if not count:
        return rows[:0], rows[:0] > 0
    best, position = overlaps.max(dim=1)
    return rows[position], best >= 0
