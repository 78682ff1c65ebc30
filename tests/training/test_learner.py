"""The network with its losses: which numbers they compare, and that every parameter learns."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_targets import box_targets
from tiny_training import CALIBRATED, CLIPS, CONFIG, OPTIONS, SIZE, Thing, read_clips
from torch import Tensor

from stmask_deploy.config import Calibration, ModelConfig
from stmask_deploy.geometry import cxcywh_to_xyxy, make_anchors
from stmask_deploy.models.frames import prepare_frames
from stmask_deploy.training.box_losses import centerness_targets, delta_loss, overlap_loss
from stmask_deploy.training.class_loss import class_loss
from stmask_deploy.training.embedding_loss import embedding_loss
from stmask_deploy.training.learner import PairLearner
from stmask_deploy.training.mask_losses import mask_loss
from stmask_deploy.training.matching import match_anchors
from stmask_deploy.training.options import LossWeights
from stmask_deploy.training.pairs import PairDataset, collate
from stmask_deploy.training.targets import FrameTargets, PairBatch
from stmask_deploy.training.weights import from_scratch

LEFT, RIGHT, MIDDLE = (0.05, 0.1, 0.45, 0.8), (0.55, 0.2, 0.95, 0.9), (0.3, 0.3, 0.7, 0.7)
NAMES = set(LossWeights.__dataclass_fields__)


def batch_of(first: list[FrameTargets], second: list[FrameTargets], seed: int = 0,
             gaps: list[int] | None = None) -> PairBatch:
    frames = torch.randint(0, 256, (2, len(first), *SIZE, 3), dtype=torch.uint8,
                           generator=torch.Generator().manual_seed(seed))
    return PairBatch(frames[0], frames[1], tuple(first), tuple(second), torch.tensor(gaps or [1] * len(first)))


def learner_of(config: ModelConfig = CONFIG, **options: Any) -> PairLearner:
    learner = PairLearner(from_scratch(config, seed=1), config, replace(OPTIONS, **options))
    return learner.train()


def losses_of(learner: PairLearner, batch: PairBatch) -> dict[str, Tensor]:
    torch.manual_seed(0)
    losses: dict[str, Tensor] = learner(batch)
    return losses


def without_gradient(learner: PairLearner) -> list[str]:
    """Names of parameters that got none, or nothing but zeros."""
    return [name for name, value in learner.model.named_parameters()
            if value.grad is None or not torch.isfinite(value.grad).all() or not value.grad.any()]


def data_batch(folder: Path, config: ModelConfig) -> PairBatch:
    large = Thing("box", (32, 48), (0, 0), 60, (30, 200, 30))  # for the anchors of the lowest level
    annotations, frames = read_clips(folder, [(large, *things) for things in CLIPS])
    dataset = PairDataset(annotations, frames, config, 100)
    return collate([dataset[index] for index in range(8)])


@pytest.mark.parametrize("changes", [
    {}, {"class_calibration": Calibration.ALIGNED, "mask_calibration": Calibration.ALIGNED},
    {"anchor_scales": (0.5, 0.8)}, {"temporal": None},
])
@pytest.mark.usefixtures("unaugmented")
def test_every_parameter_learns(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = replace(CALIBRATED, **({"anchor_scales": (0.5,)} | changes))
    batch = data_batch(tmp_path, config)
    assert all(len(targets) for targets in (*batch.first_targets, *batch.second_targets))
    learner = learner_of(config, positive_iou=0.3, negative_iou=0.2)
    names = {name for name, _ in learner.model.named_parameters()}
    assert "backbone.layers.2.0.conv2.conv_offset_mask.weight" in names  # offsets start at zero, and leave it
    losses = losses_of(learner, batch)
    assert set(losses) == (NAMES if config.temporal else NAMES - {"box_shift", "mask_shift"})
    torch.stack(list(losses.values())).sum().backward()
    assert without_gradient(learner) == []


def test_frame_losses_are_those_of_the_parts() -> None:
    """Against the network's own predictions, frame by frame and object by object."""
    first = [box_targets([LEFT, RIGHT], class_ids=[1, 2]), box_targets([LEFT], class_ids=[1])]
    second = [box_targets([MIDDLE], class_ids=[2], track_ids=[2]), box_targets([RIGHT], class_ids=[2], track_ids=[2])]
    learner, batch = learner_of(), batch_of(first, second)
    with torch.no_grad():
        found = losses_of(learner, batch)
        prediction = learner.model(prepare_frames(torch.cat([batch.first, batch.second]), CONFIG))
    anchors = make_anchors(CONFIG.level_sizes, CONFIG.anchor_shapes, CONFIG.anchor_scales)
    sums, positives = dict.fromkeys(("classes", "boxes", "overlap", "centerness", "masks"), 0.0), 0
    embeddings, ids, frames = [], [], []
    for i, targets in enumerate((*first, *second)):
        match = match_anchors(torch.from_numpy(cxcywh_to_xyxy(anchors)), targets, 0.4, 0.3)
        labels = match.objects.clone()
        assert len(match.positive) < 100  # beyond, masks would be drawn at random
        for anchor in np.flatnonzero(match.objects.numpy() >= 0).tolist():
            row = int(match.objects[anchor])
            labels[anchor] = targets.class_ids[row]
            prior, box = torch.from_numpy(anchors[anchor:anchor + 1]), targets.boxes[row:row + 1]
            deltas = prediction.anchors.box_deltas[i, anchor:anchor + 1]
            sums["boxes"] += float(delta_loss(deltas, box, prior))
            sums["overlap"] += float(overlap_loss(deltas, box, prior))
            sums["centerness"] += abs(float(prediction.anchors.centerness[i, anchor] - centerness_targets(box, prior)))
            sums["masks"] += float(mask_loss(prediction.prototypes[i], prediction.anchors.mask_coeffs[i, anchor][None],
                                             targets.masks[row][None], box))
            embeddings.append(prediction.anchors.embeddings[i, anchor])
            ids.append(int(targets.track_ids[row]))
            frames.append(i)
            positives += 1
        sums["classes"] += float(class_loss(prediction.anchors.class_probs[i], labels))
    assert positives > 5
    for name, value in sums.items():
        assert float(found[name]) == pytest.approx(value / positives, rel=1e-3), name
    assert float(found["embeddings"]) == pytest.approx(
        float(embedding_loss(torch.stack(embeddings), torch.tensor(ids), torch.tensor(frames))), rel=1e-3)


def test_temporal_losses_start_at_the_first_frames_boxes() -> None:
    # Of three objects two are in both frames, listed in another order there.
    first = box_targets([LEFT, RIGHT, MIDDLE], track_ids=[4, 5, 6])
    second = box_targets([(0.6, 0.25, 0.99, 0.85), (0.1, 0.1, 0.5, 0.7)], track_ids=[5, 4])
    learner, batch = learner_of(box_jitter=0.0), batch_of([first], [second])
    with torch.no_grad():
        found = losses_of(learner, batch)
        prediction = learner.model(prepare_frames(torch.cat([batch.first, batch.second]), CONFIG))
        starts, ends = first.boxes[:2], second.boxes[[1, 0]]
        # One thousandth, so that no box is without extent.
        starts = starts + torch.tensor([0, 0, 1e-3, 1e-3])
        deltas, coeff_deltas = learner.model.TemporalNet(
            prediction.fpn[:1], prediction.fpn[1:], prediction.temporal[:1], prediction.temporal[1:], starts)
        priors = torch.cat([(starts[:, :2] + starts[:, 2:]) / 2, starts[:, 2:] - starts[:, :2]], dim=1)
        shift = (delta_loss(deltas, ends, priors) + overlap_loss(deltas, ends, priors)).mean()
        match = match_anchors(learner.corners, first, 0.4, 0.3)
        coeffs = []
        for row in range(2):
            own = [anchor for anchor in match.positive.tolist() if match.objects[anchor] == row]
            coeffs.append(prediction.anchors.mask_coeffs[0, max(own, key=lambda one: float(match.overlaps[one]))])
        masks = mask_loss(prediction.prototypes[1], torch.stack(coeffs) + coeff_deltas, second.masks[[1, 0]], ends)
    assert float(found["box_shift"]) == pytest.approx(float(shift), rel=1e-3)
    assert float(found["mask_shift"]) == pytest.approx(float(masks.mean()), rel=1e-3)


def test_an_object_without_an_anchor_moves_no_other_objects_mask() -> None:
    small = [(0.501 + 0.002 * row, 0.5, 0.503 + 0.002 * row, 0.52) for row in range(2)]  # both have one best anchor
    learner = learner_of(box_jitter=0.0)
    match = match_anchors(learner.corners, box_targets(small), 0.4, 0.3)
    assert sorted(match.objects[match.positive].tolist()) == [1]
    with torch.no_grad():
        both = losses_of(learner, batch_of([box_targets(small)], [box_targets([LEFT, RIGHT])]))
        second = losses_of(learner, batch_of([box_targets(small)], [box_targets([RIGHT], track_ids=[2])]))
    assert float(both["mask_shift"]) == pytest.approx(float(second["mask_shift"]) / 2, rel=1e-3)


def test_pairs_far_apart_teach_temporal_net_nothing() -> None:
    learner = learner_of(box_jitter=0.0, max_shift_gap=3)
    pairs = [box_targets([LEFT]), box_targets([RIGHT, LEFT])], [box_targets([MIDDLE]), box_targets([LEFT, RIGHT])]
    with torch.no_grad():
        near, one_far, all_far = (losses_of(learner, batch_of(*pairs, gaps=gaps)) for gaps in ([3, 3], [3, 4], [4, 9]))
    for name in NAMES - {"box_shift", "mask_shift"}:
        assert float(near[name]) == float(one_far[name]) == float(all_far[name])
    for name in ("box_shift", "mask_shift"):
        assert float(all_far[name]) == 0 < float(one_far[name]) != float(near[name])
    with torch.no_grad():  # the objects of the near pair alone
        emptied = losses_of(learner, batch_of([pairs[0][0], box_targets([])], [pairs[1][0], box_targets([])]))
    assert float(one_far["box_shift"]) == pytest.approx(float(emptied["box_shift"]), rel=1e-3)


def test_order_of_pairs_does_not_matter() -> None:
    one, other = (box_targets([LEFT]), box_targets([MIDDLE])), (box_targets([RIGHT, LEFT]), box_targets([RIGHT]))
    learner = learner_of(box_jitter=0.0)
    forwards = batch_of([one[0], other[0]], [one[1], other[1]])
    backwards = PairBatch(forwards.first.flip(0), forwards.second.flip(0), forwards.first_targets[::-1],
                          forwards.second_targets[::-1], forwards.gaps)
    with torch.no_grad():
        found, again = losses_of(learner, forwards), losses_of(learner, backwards)
    for name, value in found.items():
        assert float(value) == pytest.approx(float(again[name]), rel=1e-3), name


@pytest.mark.parametrize(("first", "second"), [
    (box_targets([]), box_targets([])),
    (box_targets([LEFT]), box_targets([])),
    (box_targets([]), box_targets([RIGHT])),
    (box_targets([LEFT], track_ids=[1]), box_targets([RIGHT], track_ids=[2])),  # no object in both
    (box_targets([], ignored=[(0, 0, 1, 1)]), box_targets([], ignored=[LEFT, RIGHT])),
])
def test_pairs_without_objects_give_finite_losses_and_gradients(first: FrameTargets, second: FrameTargets) -> None:
    learner = learner_of()
    losses = losses_of(learner, batch_of([first], [second]))
    assert set(losses) == NAMES
    torch.stack(list(losses.values())).sum().backward()
    assert all(torch.isfinite(value) for value in losses.values())
    assert all(value.grad is None or torch.isfinite(value.grad).all() for value in learner.model.parameters())
    if not len(first) and not len(second):
        assert {name for name, value in losses.items() if float(value.detach()) != 0} <= {"classes"}
        if not len(first.ignored):
            assert float(losses["classes"].detach()) > 0  # background is taught all the same


def test_an_empty_pair_beside_a_full_one() -> None:
    learner = learner_of()
    batch = batch_of([box_targets([]), box_targets([LEFT])], [box_targets([]), box_targets([MIDDLE])])
    torch.stack(list(losses_of(learner, batch).values())).sum().backward()
    assert all(torch.isfinite(value.grad).all() for value in learner.model.parameters() if value.grad is not None)


def test_padded_input_sizes() -> None:
    config = replace(CONFIG, input_size=(50, 90))  # padded to 64 x 96, as the targets are
    frames = torch.zeros(2, 1, 50, 90, 3, dtype=torch.uint8)
    batch = PairBatch(frames[0], frames[1], (box_targets([LEFT]),), (box_targets([LEFT]),), torch.tensor([1]))
    losses = losses_of(learner_of(config), batch)
    assert all(torch.isfinite(value) for value in losses.values())


def test_jitter_moves_boxes_by_a_share_of_their_sides() -> None:
    boxes = torch.tensor([[0.2, 0.2, 0.4, 0.8]]).repeat(2000, 1)
    torch.manual_seed(0)
    moved = learner_of(box_jitter=0.1)._jitter(boxes)
    spread = (moved - boxes).std(dim=0)
    assert spread.tolist() == pytest.approx([0.02, 0.06, 0.02, 0.06], rel=0.15)
    assert float((moved - boxes).abs().max()) < 0.2 * 0.6 + 2e-3
    torch.testing.assert_close(learner_of(box_jitter=0.0)._jitter(boxes), boxes, atol=1.1e-3, rtol=0)
    point = learner_of(box_jitter=1.0)._jitter(torch.full((5, 4), 0.5))
    assert bool((point[:, 2:] > point[:, :2]).all())
