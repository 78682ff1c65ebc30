from __future__ import annotations

import numpy as np
import pytest
from tracking import assert_recorded, carried, instances, random_instances, replay, step

from stmask_deploy.runtime.released_tracker import ReleasedTracker

LEFT, RIGHT, BELOW = (0, 0, 3, 3), (0, 5, 3, 8), (5, 0, 8, 3)
NOTHING = instances([], [])


@pytest.mark.parametrize("name, objects", [("a", 14), ("b", 31)])
def test_recorded(name: str, objects: int) -> None:
    tracker = ReleasedTracker()
    for shown, recorded in replay(tracker, name, "temporal"):
        assert_recorded(shown, recorded)
    assert len(tracker.tracks) == objects  # nothing was deleted
    assert tracker.tracks.ids.tolist() == list(range(objects))


@pytest.mark.parametrize("name", ["a", "b"])
def test_retiring_changes_nothing_before_an_object_returns_late(name: str) -> None:
    """The longest absence after which a recorded object is found again is shorter than 15 frames."""
    for shown, recorded in replay(ReleasedTracker(retire_after=15), name, "temporal"):
        assert_recorded(shown, recorded)


def test_objects_keep_their_ids() -> None:
    tracker = ReleasedTracker()
    assert step(tracker, NOTHING).ids.tolist() == []
    assert step(tracker, instances([LEFT, RIGHT], [0, 1])).ids.tolist() == [0, 1]
    assert step(tracker, instances([RIGHT, LEFT], [1, 0])).ids.tolist() == [0, 1]
    shown = step(tracker, instances([BELOW, RIGHT], [2, 1]))
    assert (shown.ids.tolist(), shown.ages.tolist()) == ([0, 1, 2], [1, 0, 0])


def test_negative_scores_match_and_are_not_shown() -> None:
    tracker = ReleasedTracker()
    step(tracker, instances([LEFT], [0]))
    assert len(step(tracker, instances([LEFT], [0], [-0.1]))) == 0
    assert tracker.tracks.ages.tolist() == [0]
    assert step(tracker, instances([LEFT], [0], [0.5])).ids.tolist() == [0]


def test_best_of_several_detections_keeps_the_object_and_the_others_vanish() -> None:
    tracker = ReleasedTracker()
    step(tracker, instances([LEFT], [0]))
    shown = step(tracker, instances([LEFT, LEFT, LEFT], [0, 0, 0], [0.4, 0.8, 0.8], [1, 2, 3]))
    assert (shown.ids.tolist(), shown.instances.class_ids.tolist(), len(tracker.tracks)) == ([0], [2], 1)


def test_scores_are_computed_before_rows_change() -> None:
    """Two equal detections of an unknown object are both new: the second is not compared with the first."""
    tracker = ReleasedTracker()
    step(tracker, instances([LEFT], [0]))
    assert step(tracker, instances([RIGHT, RIGHT], [1, 1])).ids.tolist() == [0, 1, 2]


def test_new_object_score() -> None:
    # same place, opposite embedding: 0.5 (right angle) + 1 + 2 = 3.5
    same_place = instances([LEFT], [0]), instances([LEFT], [1])
    for threshold, expected in ((3.4, [0]), (3.6, [0, 1])):
        tracker = ReleasedTracker(new_object_score=threshold)
        step(tracker, same_place[0])
        assert step(tracker, same_place[1]).ids.tolist() == expected


def test_age_limit_is_for_showing_only() -> None:
    tracker = ReleasedTracker(max_age_shown=2)
    step(tracker, instances([LEFT], [0]))
    assert [len(step(tracker, NOTHING)) for _ in range(4)] == [1, 1, 0, 0]
    assert step(tracker, instances([LEFT], [0])).ids.tolist() == [0]


def test_retired_ids_are_not_used_again() -> None:
    tracker = ReleasedTracker(retire_after=3)
    step(tracker, instances([LEFT, RIGHT], [0, 1]))
    for _ in range(3):
        step(tracker, NOTHING)
    assert len(tracker.tracks) == 2
    step(tracker, NOTHING)
    assert len(tracker.tracks) == 0
    assert step(tracker, instances([LEFT], [0])).ids.tolist() == [2]


def test_retiring_bounds_the_state() -> None:
    rng = np.random.default_rng(0)
    tracker, seen = ReleasedTracker(retire_after=5), set()
    for _ in range(100):
        seen.update(step(tracker, random_instances(rng, 6)).ids.tolist())
        assert len(tracker.tracks) <= 6 * 6
        assert len(set(tracker.tracks.ids.tolist())) == len(tracker.tracks)
    assert len(seen) > 50


def test_arguments_stay_as_they_were() -> None:
    tracker = ReleasedTracker()
    step(tracker, instances([LEFT], [0]))
    before = carried(tracker.tracks, 1.0)
    found = instances([LEFT, BELOW], [0, 2], [0.5, 0.4])
    tracker.update(found, before)
    assert before.instances.scores.tolist() == [np.float32(0.9)]
    tracker.tracks.instances.scores[:] = 0
    assert found.scores.tolist() == np.float32([0.5, 0.4]).tolist()
