from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from tracking import instances, random_instances, step

from stmask_deploy.runtime.paper_tracker import PaperTracker
from stmask_deploy.types import Array, Instances

LEFT, RIGHT, BELOW = (0, 0, 3, 3), (0, 5, 3, 8), (5, 0, 8, 3)
NOTHING = instances([], [])


@dataclass
class Known:
    """One object of the slow tracker."""

    score: float
    class_id: int
    embedding: Array
    mask: Array
    age: int = 0


class SlowPaperTracker:
    """Eq. 15-17 one pair at a time, objects in a dictionary; still scenes only."""

    def __init__(self, alpha: float, beta: float, epsilon: float, momentum: float, max_cover: float) -> None:
        self.weights = alpha, beta, epsilon
        self.momentum, self.max_cover = momentum, max_cover
        self.known: dict[int, Known] = {}

    def is_covered(self, found: Known, better: list[Known]) -> bool:
        mask = found.mask > 0.5
        return any((mask & (one.mask > 0.5)).sum() > self.max_cover * mask.sum() for one in better)

    def remember(self, found: Known, known: Known) -> Known:
        share = 1 - self.momentum * (1 - min(max(found.score, 0), 1))
        mixed = share * found.embedding + (1 - share) * known.embedding
        length = float(np.sqrt((mixed ** 2).sum()))
        return replace(found, embedding=mixed / length if length else found.embedding)

    def pair_score(self, found: Known, known: Known) -> float:
        alpha, beta, _ = self.weights
        a, b = found.mask > 0.5, known.mask > 0.5
        overlap = (a & b).sum() / (a | b).sum() if (a | b).any() else 0
        return alpha * float(found.embedding @ known.embedding) + beta * float(overlap)

    def update(self, rows: Instances) -> list[tuple[int, int, int]]:
        """(id, class id, age) of what is shown, by id."""
        before = dict(self.known)
        for known in before.values():
            known.score *= 0.95
            known.age += 1
        taken = set()
        better: list[Known] = []
        for row in range(len(rows)):  # best score first
            found = Known(float(rows.scores[row]), int(rows.class_ids[row]), rows.embeddings[row], rows.masks[row])
            scores = {i: self.pair_score(found, known) for i, known in before.items()}
            best = max(scores, key=lambda i: (scores[i], -i), default=None)
            if best is None or scores[best] <= self.weights[2]:
                if not self.is_covered(found, better):
                    self.known[len(self.known)] = found
            elif best not in taken:
                taken.add(best)
                self.known[best] = self.remember(found, before[best])
            better.append(found)
        return sorted((i, known.class_id, known.age) for i, known in self.known.items()
                      if known.age <= 10 and known.score > 0.05 and (known.mask > 0.5).sum() > 1)


@pytest.mark.parametrize("settings", [
    (1.0, 1.0, 0.7, 0.0, 1.0), (1.0, 0.25, 1.1, 0.0, 1.0), (0.0, 1.0, 0.3, 0.0, 1.0), (1.0, 1.0, 0.7, 1.0, 1.0),
    (1.0, 1.0, 0.7, 0.0, 0.5), (2.0, 1.0, 1.1, 0.6, 0.3), (1.0, 1.0, 0.7, 1.0, 0.0)])
def test_agrees_with_the_equations(settings: tuple[float, float, float, float, float]) -> None:
    rng = np.random.default_rng(4)
    tracker, slow = PaperTracker(*settings), SlowPaperTracker(*settings)
    for _ in range(40):
        found = random_instances(rng, int(rng.integers(0, 6)))
        shown = step(tracker, found)
        rows = zip(shown.ids.tolist(), shown.instances.class_ids.tolist(), shown.ages.tolist(), strict=True)
        assert sorted(rows) == slow.update(found)
    assert len(tracker.tracks) == len(slow.known) > 5


def test_default_parameters() -> None:
    """alpha = beta = 1: the same embedding alone exceeds epsilon, half the mask alone does not."""
    tracker = PaperTracker()
    step(tracker, instances([LEFT], [0]))
    assert step(tracker, instances([RIGHT], [0])).ids.tolist() == [0]
    assert step(tracker, instances([(0, 5, 3, 6)], [1])).ids.tolist() == [0, 1]


def test_missing_ids_are_supplied_by_propagation() -> None:
    tracker = PaperTracker(max_age_shown=3)
    step(tracker, instances([LEFT, RIGHT], [0, 1]))
    shown = step(tracker, instances([RIGHT], [1]))
    assert (shown.ids.tolist(), shown.ages.tolist()) == ([0, 1], [1, 0])
    assert [len(step(tracker, NOTHING)) for _ in range(4)] == [2, 2, 1, 0]


def test_best_of_several_detections_keeps_the_id() -> None:
    tracker = PaperTracker()
    step(tracker, instances([LEFT], [0]))
    shown = step(tracker, instances([LEFT, LEFT], [0, 0], [0.4, 0.8], [1, 2]))
    assert (shown.ids.tolist(), shown.instances.class_ids.tolist()) == ([0], [2])


@pytest.mark.parametrize("score, momentum, expected", [
    (0.25, 1.0, [0.75, 0.25]), (0.25, 0.5, [0.375, 0.625]), (0.25, 0.0, [0, 1]), (1.0, 1.0, [0, 1]),
    (-0.5, 1.0, [1, 0])])
def test_what_scores_low_changes_the_embedding_little(score: float, momentum: float, expected: list[float]) -> None:
    tracker = PaperTracker(embedding_momentum=momentum)
    step(tracker, instances([LEFT], [0]))
    step(tracker, instances([LEFT], [1], [score]))
    kept = tracker.tracks.instances.embeddings
    np.testing.assert_allclose(kept[0, :2], np.array(expected) / np.linalg.norm(expected), atol=1e-6)


def test_embeddings_that_cancel_each_other_are_replaced() -> None:
    tracker = PaperTracker(alpha=0.0, epsilon=0.5, embedding_momentum=1.0)
    step(tracker, instances([LEFT], [0]))
    opposite = instances([LEFT], [0], [0.5])
    step(tracker, opposite.replace(embeddings=-opposite.embeddings))
    assert tracker.tracks.instances.embeddings[0].tolist() == [-1] + [0] * 7


def test_an_object_is_known_again_in_spite_of_a_poor_detection_in_between() -> None:
    """The poor one lies where the object is and looks like something else."""
    def ids(momentum: float) -> list[int]:
        tracker = PaperTracker(embedding_momentum=momentum)
        step(tracker, instances([LEFT], [0]))
        step(tracker, instances([LEFT], [1], [0.1]))
        return step(tracker, instances([RIGHT], [0])).ids.tolist()

    assert ids(0.0) == [0, 1] and ids(1.0) == [0]


@pytest.mark.parametrize("max_cover, ids", [(1.0, [0, 1, 2]), (0.7, [0, 1, 2]), (0.6, [0, 1]), (0.0, [0, 1])])
def test_what_a_better_detection_covers_is_no_new_object(max_cover: float, ids: list[int]) -> None:
    """Two thirds of the third lie in the first, nothing of the second does."""
    found = instances([LEFT, BELOW, (1, 0, 4, 3)], [0, 1, 2], [0.9, 0.8, 0.7])
    assert step(PaperTracker(max_cover=max_cover), found).ids.tolist() == ids


def test_one_mask_in_two_classes_is_one_object() -> None:
    """Suppression within each class keeps such pairs."""
    found = instances([LEFT, LEFT], [0, 1], [0.9, 0.8], [1, 2])
    assert step(PaperTracker(max_cover=0.99), found).ids.tolist() == [0]
    assert step(PaperTracker(), found).ids.tolist() == [0, 1]


def test_a_known_object_may_be_covered() -> None:
    tracker = PaperTracker(max_cover=0.5)
    step(tracker, instances([LEFT, RIGHT], [0, 1]))
    assert step(tracker, instances([LEFT, LEFT], [0, 1], [0.9, 0.8])).ids.tolist() == [0, 1]


def test_retired_ids_are_not_used_again() -> None:
    tracker = PaperTracker(retire_after=1)
    step(tracker, instances([LEFT], [0]))
    step(tracker, NOTHING)
    assert len(step(tracker, NOTHING)) == len(tracker.tracks) == 0
    step(tracker, NOTHING)
    assert step(tracker, instances([LEFT], [0])).ids.tolist() == [1]


def test_score_threshold() -> None:
    tracker = PaperTracker(score_threshold=0.5)
    assert step(tracker, instances([LEFT, RIGHT], [0, 1], [0.6, 0.4])).ids.tolist() == [0]
    assert len(tracker.tracks) == 2
