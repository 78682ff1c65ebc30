"""Losses on boxes: by hand, in loops, and at boxes that are no boxes."""
from __future__ import annotations

import math

import pytest
import torch
from tiny_targets import Box, boxes_of, random_boxes
from torch import Tensor

from stmask_deploy.models.boxes import decode_boxes
from stmask_deploy.training.box_losses import centerness_targets, delta_loss, encode_boxes, overlap_loss

UNIT = torch.tensor([[0.5, 0.5, 1.0, 1.0]])  # cxcywh, the whole frame


def as_anchors(boxes: Tensor) -> Tensor:
    return torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], dim=1)


def test_encoding_is_undone_by_decoding() -> None:
    boxes, anchors = random_boxes(50, 0), as_anchors(random_boxes(50, 1))
    torch.testing.assert_close(decode_boxes(encode_boxes(boxes, anchors), anchors), boxes, atol=1e-5, rtol=0)


def test_encoding_by_hand() -> None:
    # Moved by a quarter of the anchor to the right, twice as wide, half as high.
    box, anchor = boxes_of([(0.5, 0.45, 0.9, 0.55)]), torch.tensor([[0.65, 0.5, 0.2, 0.2]])
    assert encode_boxes(box, anchor)[0].tolist() == pytest.approx(
        [0.25 / 0.1, 0, math.log(2) / 0.2, math.log(0.5) / 0.2], abs=1e-4)


def test_delta_loss_by_hand() -> None:
    wanted = encode_boxes(boxes_of([(0.1, 0.2, 0.7, 0.9)]), UNIT)
    off = wanted + torch.tensor([[0.5, -3.0, 0.0, 1.0]])  # smooth L1: a square below one, straight above
    assert float(delta_loss(off, boxes_of([(0.1, 0.2, 0.7, 0.9)]), UNIT)) == pytest.approx(
        0.5**2 / 2 + (3 - 0.5) + 0 + (1 - 0.5), abs=1e-4)


@pytest.mark.parametrize(("found", "true", "loss"), [
    ((0.1, 0.2, 0.6, 0.5), (0.1, 0.2, 0.6, 0.5), 0.0),  # identical
    ((0.0, 0.0, 0.8, 0.8), (0.2, 0.2, 0.6, 0.6), 1 - 0.16 / 0.64),  # nested: the hull is the larger one
    ((0.0, 0.0, 0.5, 0.5), (0.25, 0.0, 0.75, 0.5), 1 - 1 / 3),  # half of each is common, nothing between
    ((0.0, 0.0, 0.2, 0.2), (0.8, 0.8, 1.0, 1.0), 1 + (1 - 0.08) / 1),  # disjoint: the rest of the hull counts
    ((0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0), 1.0),  # touching: no overlap, nothing between
])
def test_overlap_loss_by_hand(found: Box, true: Box, loss: float) -> None:
    deltas = encode_boxes(boxes_of([found]), UNIT)
    assert float(overlap_loss(deltas, boxes_of([true]), UNIT)) == pytest.approx(loss, abs=1e-4)


def test_overlap_loss_is_bounded_and_falls_towards_the_box() -> None:
    boxes, anchors = random_boxes(40, 2, 0.1), as_anchors(random_boxes(40, 3, 0.1))
    start, end = torch.zeros(40, 4), encode_boxes(boxes, anchors)
    losses = torch.stack([overlap_loss(start + share * (end - start), boxes, anchors) for share in (0, 0.5, 0.9, 1)])
    assert float(losses.min()) > -1e-4 and float(losses.max()) < 2
    assert bool((losses.mean(dim=1).diff() < 0).all()) and float(losses[-1].max()) < 1e-3


def test_centerness_in_loops() -> None:
    boxes, anchors = random_boxes(60, 4, 0.1), as_anchors(random_boxes(60, 5))
    expected = []
    for (left, top, right, bottom), (x, y, _, _) in zip(boxes.tolist(), anchors.tolist(), strict=True):
        if not (left < x < right and top < y < bottom):
            expected.append(0.0)
            continue
        horizontal = min(x - left, right - x) / max(x - left, right - x)
        vertical = min(y - top, bottom - y) / max(y - top, bottom - y)
        expected.append(math.sqrt(horizontal * vertical))
    assert 0 in expected and max(expected) > 0.3
    torch.testing.assert_close(centerness_targets(boxes, anchors), torch.tensor(expected), atol=1e-4, rtol=1e-3)


def test_centerness_is_one_at_the_centre() -> None:
    boxes = random_boxes(5, 6, 0.1)
    torch.testing.assert_close(centerness_targets(boxes, as_anchors(boxes)), torch.ones(5), atol=1e-3, rtol=0)


@pytest.mark.parametrize("box", [
    (0.3, 0.3, 0.3, 0.3),  # a point
    (0.2, 0.5, 0.8, 0.5),  # a line
    (0.0, 0.0, 1.0, 1.0),
    (-0.5, -0.5, 2.0, 2.0),  # beyond the frame
])
@pytest.mark.parametrize("delta", [0.0, 30.0, -60.0, -400.0])  # the last decodes to a box without extent
def test_gradients_are_finite_at_boxes_that_are_none(box: Box, delta: float) -> None:
    boxes = boxes_of([box])
    for anchors in (torch.tensor([[0.3, 0.3, 0.1, 0.1]]), torch.tensor([[0.3, 0.3, 1e-3, 1e-3]])):
        deltas = torch.full((1, 4), delta, requires_grad=True)
        loss = delta_loss(deltas, boxes, anchors) + overlap_loss(deltas, boxes, anchors)
        loss.sum().backward()
        assert torch.isfinite(loss).all() and deltas.grad is not None and torch.isfinite(deltas.grad).all()
        assert torch.isfinite(centerness_targets(boxes, anchors)).all()


def test_no_boxes() -> None:
    nothing = torch.zeros(0, 4)
    for loss in (delta_loss, overlap_loss):
        assert loss(nothing, nothing, nothing).shape == (0,)
    assert encode_boxes(nothing, nothing).shape == (0, 4) and centerness_targets(nothing, nothing).shape == (0,)
