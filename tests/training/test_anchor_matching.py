"""Which anchor answers for which object, against loops over all pairs."""
from __future__ import annotations

import pytest
import torch
from tiny_targets import Box, box_targets, boxes_of, random_boxes
from torch import Tensor

from stmask_deploy.training.learner import best_anchors
from stmask_deploy.training.matching import (
    BACKGROUND,
    IGNORED_SHARE,
    NEUTRAL,
    AnchorMatch,
    match_anchors,
    pairwise_iou,
)

POSITIVE, NEGATIVE = 0.5, 0.4
LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0)  # halves of the frame


def area(box: list[float]) -> float:
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def common(a: list[float], b: list[float]) -> float:
    return area([max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])])


def iou(a: list[float], b: list[float]) -> float:
    union = area(a) + area(b) - common(a, b)
    return common(a, b) / union if union > 0 else 0.0


def match_in_loops(anchors: Tensor, boxes: Tensor, ignored: Tensor) -> list[int]:
    """The object of every anchor, one decision at a time."""
    answers = []
    for anchor in anchors.tolist():
        overlaps = [iou(anchor, box) for box in boxes.tolist()]
        best = max(overlaps, default=0.0)
        if best >= POSITIVE:
            answers.append(overlaps.index(best))
        elif best >= NEGATIVE:
            answers.append(NEUTRAL)
        elif any(common(anchor, region) > IGNORED_SHARE * area(anchor) for region in ignored.tolist()):
            answers.append(NEUTRAL)
        else:
            answers.append(BACKGROUND)
    for row, box in enumerate(boxes.tolist()):
        overlaps = [iou(anchor, box) for anchor in anchors.tolist()]
        answers[overlaps.index(max(overlaps))] = row
    return answers


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("objects", "regions"), [(6, 0), (6, 3), (1, 1), (0, 3), (0, 0)])
def test_against_loops(objects: int, regions: int, seed: int) -> None:
    boxes, ignored = random_boxes(objects, seed, 0.1), random_boxes(regions, seed + 100, 0.3)
    nearby = (boxes.repeat(8, 1) + 0.06 * torch.randn(8 * objects, 4, generator=torch.Generator().manual_seed(seed)))
    anchors = torch.cat([random_boxes(150, seed + 200), nearby])
    anchors = torch.cat([anchors[:, :2], torch.maximum(anchors[:, 2:], anchors[:, :2] + 0.01)], dim=1)
    targets = box_targets(boxes.tolist(), ignored=ignored.tolist())
    found = match_anchors(anchors, targets, POSITIVE, NEGATIVE).objects.tolist()
    assert found == match_in_loops(anchors, boxes, ignored)
    if objects > 1:
        assert {BACKGROUND, NEUTRAL, *range(objects)} == set(found)  # the case says something about each


def test_iou_against_loops() -> None:
    a, b = random_boxes(7, 0), torch.cat([random_boxes(5, 1), boxes_of([(0.5, 0.5, 0.5, 0.5)])])  # the last has no area
    expected = [[iou(one, other) for other in b.tolist()] for one in a.tolist()]
    torch.testing.assert_close(pairwise_iou(a, b), torch.tensor(expected))
    assert float(pairwise_iou(b[-1:], b[-1:])) == 0
    assert pairwise_iou(a[:0], b).shape == (0, 6) and pairwise_iou(a, b[:0]).shape == (7, 0)


@pytest.mark.parametrize(("share", "answer"), [
    (0.5, 0), (0.499, NEUTRAL), (0.4, NEUTRAL), (0.399, BACKGROUND),
])
def test_thresholds(share: float, answer: int) -> None:
    anchors = boxes_of([(0, 0, 1, 1), (0, 0, 1, share)])  # the object's own, and a share of it
    assert match_anchors(anchors, box_targets([(0, 0, 1, 1)]), POSITIVE, NEGATIVE).objects.tolist() == [0, answer]


def test_an_object_that_fits_no_anchor_takes_the_best() -> None:
    small: Box = (0.6, 0.4, 0.65, 0.45)
    found = match_anchors(boxes_of([LEFT, RIGHT]), box_targets([small]), POSITIVE, NEGATIVE)
    assert found.objects.tolist() == [BACKGROUND, 0]
    assert found.overlaps.tolist() == pytest.approx([0, 0.05**2 / 0.5], rel=1e-4)
    assert found.positive.tolist() == [1]


def test_ignored_regions_take_nothing_from_objects() -> None:
    targets = box_targets([LEFT], ignored=[(0, 0, 1, 1)])
    assert match_anchors(boxes_of([LEFT, RIGHT]), targets, POSITIVE, NEGATIVE).objects.tolist() == [0, NEUTRAL]


def test_of_two_objects_with_one_best_anchor_the_later_gets_it() -> None:
    targets = box_targets([(0.6, 0.4, 0.65, 0.45), (0.7, 0.4, 0.75, 0.45), (0.0, 0.0, 0.5, 0.9)])
    match = match_anchors(boxes_of([LEFT, RIGHT]), targets, POSITIVE, NEGATIVE)
    assert match.objects.tolist() == [2, 1]
    anchors, found = best_anchors(match, 3)
    assert found.tolist() == [False, True, True]
    assert anchors[found].tolist() == [1, 0]


def test_best_anchors_against_loops() -> None:
    generator = torch.Generator().manual_seed(3)
    objects = torch.randint(-2, 5, (60,), generator=generator)
    objects[objects == 3] = BACKGROUND  # an object without an anchor
    overlaps = torch.rand(60, generator=generator)
    anchors, found = best_anchors(AnchorMatch(objects, overlaps), 5)
    assert found.tolist() == [True, True, True, False, True]
    for row in (0, 1, 2, 4):
        own = [index for index in range(60) if objects[index] == row]
        assert int(anchors[row]) == max(own, key=lambda index: float(overlaps[index]))


@pytest.mark.parametrize("objects", [torch.full((4,), BACKGROUND), torch.full((0,), BACKGROUND)])
def test_best_anchors_of_no_objects(objects: Tensor) -> None:
    anchors, found = best_anchors(AnchorMatch(objects, torch.zeros(len(objects))), 0)
    assert anchors.shape == found.shape == (0,) and found.dtype == torch.bool
