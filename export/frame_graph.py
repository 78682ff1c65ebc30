"""The frame graph: one picture in, candidates and feature maps out."""
from __future__ import annotations

import torch
from torch import Tensor, nn

from stmask_deploy.config import ModelConfig
from stmask_deploy.geometry import make_anchors
from stmask_deploy.models.boxes import decode_boxes
from stmask_deploy.models.frames import prepare_frames
from stmask_deploy.models.stmask import FramePrediction, STMask

NOT_A_CANDIDATE = -2.0  # less than any product of a probability and a centerness


class FrameGraph(nn.Module):
    """The frame network with its pre- and post-processing: normalisation, padding, decoding, candidate selection.

    The graph outputs only a few hundred rows. They are ordered by score (best foreground probability times
    centerness), as in cross-class NMS, which therefore loses nothing if K is at least its `top_k`.

    Args:
        model: the network.
        config: its configuration.
        max_candidates: K, number of output rows, at most `config.num_anchors`.
        candidate_threshold: foreground probability above which an anchor is a candidate.
    """

    anchors: Tensor

    def __init__(self, model: STMask, config: ModelConfig, max_candidates: int, candidate_threshold: float) -> None:
        super().__init__()
        self.model, self.config = model, config
        self.max_candidates, self.candidate_threshold = max_candidates, candidate_threshold
        anchors = make_anchors(config.level_sizes, config.anchor_shapes, config.anchor_scales)
        self.register_buffer("anchors", torch.from_numpy(anchors), persistent=False)

    def forward(self, frame: Tensor) -> tuple[Tensor, ...]:
        """uint8 (1, H, W, 3) BGR -> the outputs named in `bundle.FRAME_OUTPUTS`, in that order.

        `shared`, `fpn` and `temporal` are omitted if no graph of the bundle reads them.
        """
        prediction = self.model(prepare_frames(frame, self.config))
        anchors = prediction.anchors
        class_scores = anchors.class_probs[0, :, 1:]  # (N, C)
        best = class_scores.amax(dim=1)
        passed = best > self.candidate_threshold
        rank = torch.where(passed, best * anchors.centerness[0], NOT_A_CANDIDATE)
        index = rank.topk(self.max_candidates).indices  # (K,)
        # Maps are only output if there is a graph that reads them.
        maps = () if self.config.temporal is None else (prediction.fpn, prediction.temporal)
        shared = (shared_rows(prediction),) if self.config.has_local_branches else ()
        return (
            decode_boxes(anchors.box_deltas[0].index_select(0, index), self.anchors.index_select(0, index)),
            class_scores.index_select(0, index),
            anchors.centerness[0].index_select(0, index),
            anchors.mask_coeffs[0].index_select(0, index),
            anchors.embeddings[0].index_select(0, index),
            index,
            passed.sum(),
            prediction.prototypes[0],
            prediction.p3,
            *shared,
            *maps,
        )


def shared_rows(prediction: FramePrediction) -> Tensor:
    """(cells, T) the shared head map of all levels, one row per cell, in anchor order."""
    return torch.cat([level.permute(0, 2, 3, 1).flatten(0, 2) for level in prediction.shared])
