"""What is kept and shown after a frame."""
from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tracking import instances, random_instances

from stmask_deploy.runtime.matching import NEW_OBJECT
from stmask_deploy.runtime.propagating_tracker import PropagatingTracker
from stmask_deploy.runtime.tracker import DROPPED
from stmask_deploy.types import TrackedInstances

NOBODY = np.zeros(0, np.int64)


def tracked(ages: list[int], scores: list[float] | None = None, side: int = 4) -> TrackedInstances:
    n = len(ages)
    return TrackedInstances(instances([(0, 0, 1, side)] * n, [0] * n, scores), np.arange(n) + 10,
                            np.array(ages, np.int64))


@pytest.mark.parametrize(("known", "expected"), [
    (tracked([0, 10, 11, 3], [0.9, 0.06, 0.9, 0.05]), [10, 11]), (tracked([0], side=1), []),
    (tracked([0], side=2), [10])])
def test_what_is_shown(known: TrackedInstances, expected: list[int]) -> None:
    tracker = PropagatingTracker(10, 0.05 + 1e-9, None)
    assert tracker._finish(known, instances([], []), NOBODY).ids.tolist() == expected
    assert tracker.tracks.ids.tolist() == known.ids.tolist()


def test_what_is_retired_is_not_shown() -> None:
    tracker = PropagatingTracker(10, 0, 5)
    assert tracker._finish(tracked([4, 5, 6]), instances([], []), NOBODY).ids.tolist() == [10, 11]
    assert tracker.tracks.ids.tolist() == [10, 11]


@settings(max_examples=100)
@given(st.integers(0, 2**32), st.integers(0, 6), st.integers(0, 6), st.sampled_from([None, 2]))
def test_masks_are_those_of_the_rows(seed: int, num_known: int, num_found: int, retire_after: int | None) -> None:
    """Every row shown has the mask of its detection, or of the object that was propagated."""
    rng = np.random.default_rng(seed)
    known = TrackedInstances(random_instances(rng, num_known), np.arange(num_known), rng.integers(1, 5, num_known))
    found = random_instances(rng, num_found)
    choices = rng.permutation(np.concatenate([np.arange(num_known), [NEW_OBJECT] * num_found, [DROPPED] * num_found]))
    assignment = choices[:num_found].astype(np.int64)
    tracker = PropagatingTracker(3, 0.1, retire_after)
    tracker._next_id = num_known
    shown = tracker._finish(known, found, assignment)
    expected = {}
    for row in range(num_known):
        if known.ages[row] <= min(3, retire_after or 3):
            expected[row] = known.instances, row
    next_id = num_known
    for row, chosen in enumerate(assignment.tolist()):
        if chosen == NEW_OBJECT:
            expected[next_id] = found, row
            next_id += 1
        elif chosen != DROPPED:
            expected[chosen] = found, row
    expected = {identity: (rows, row) for identity, (rows, row) in sorted(expected.items())
                if rows.scores[row] > 0.1 and (rows.masks[row] > 0.5).sum() >= 2}
    assert shown.ids.tolist() == list(expected)
    for index, (rows, row) in enumerate(expected.values()):
        np.testing.assert_array_equal(shown.instances.masks[index], rows.masks[row])
        assert shown.instances.scores[index] == rows.scores[row]
    assert tracker._next_id == next_id
    assert tracker.tracks.instances.masks.shape == (len(tracker.tracks), 0, 0)
