from __future__ import annotations

import numpy as np
import pytest
from tracking import Recorded, assert_recorded, instances, replay, step

from stmask_deploy.runtime.frame_tracker import FrameTracker

LEFT, RIGHT, BELOW = (0, 0, 3, 3), (0, 5, 3, 8), (5, 0, 8, 3)
NOTHING = instances([], [])


@pytest.mark.parametrize("name", ["a", "b"])
def test_recorded(name: str) -> None:
    """The recording was made before scores are thresholded."""
    for shown, recorded in replay(FrameTracker(score_threshold=-1.0), name, "frame"):
        assert_recorded(shown, recorded)


@pytest.mark.parametrize("name", ["a", "b"])
def test_recorded_above_the_score_threshold(name: str) -> None:
    hidden = 0
    for shown, recorded in replay(FrameTracker(), name, "frame"):
        above = recorded.scores > 0.05
        hidden += int((~above).sum())
        assert_recorded(shown, Recorded(*(column[above] for column in (
            recorded.ids, recorded.boxes, recorded.scores, recorded.classes, recorded.area))))
    assert hidden > 0


def test_shows_only_the_frames_own_detections_with_masks_of_0_and_1() -> None:
    tracker = FrameTracker()
    step(tracker, instances([LEFT, RIGHT], [0, 1]))
    shown = step(tracker, instances([BELOW, RIGHT], [2, 1]))
    assert (shown.ids.tolist(), shown.ages.tolist()) == ([2, 1], [0, 0])  # in order of detection
    assert np.unique(shown.instances.masks).tolist() == [0, 1]
    assert len(step(tracker, NOTHING)) == 0


def test_objects_are_found_again_after_any_time() -> None:
    tracker = FrameTracker()
    step(tracker, instances([LEFT, RIGHT], [0, 1]))
    for _ in range(50):
        step(tracker, NOTHING)
    assert step(tracker, instances([RIGHT], [1])).ids.tolist() == [1]


def test_stored_values_are_those_of_the_last_match() -> None:
    """An object that walks away step by step keeps its id: each match moves what is stored."""
    tracker = FrameTracker()
    walk = [(0, x, 4, x + 4) for x in range(5)]
    assert [step(tracker, instances([cells], [0])).ids.tolist() for cells in walk] == [[0]] * 5
    np.testing.assert_array_equal(tracker.tracks.instances.boxes[0], np.float32([0.5, 0, 1, 0.5]))


def test_a_crowded_detection_takes_the_id_and_leaves_the_stored_values_alone() -> None:
    tracker = FrameTracker()
    step(tracker, instances([(0, 0, 4, 4), (0, 2, 4, 6)], [0, 1]))  # IoU of the two: 1/3
    stored = tracker.tracks.instances.boxes.copy()
    shown = step(tracker, instances([(0, 1, 4, 5)], [0]))  # overlaps both by 3/5
    assert shown.ids.tolist() == [0]
    np.testing.assert_array_equal(tracker.tracks.instances.boxes, stored)
    assert tracker.tracks.ages.tolist() == [0, 1]  # it was detected all the same
    step(tracker, instances([(0, 0, 4, 2)], [0]))  # overlaps the first by 1/2, the second not at all
    assert tracker.tracks.instances.boxes[0].tolist() == [0, 0, 0.25, 0.5]


def test_best_of_several_detections_keeps_the_id() -> None:
    tracker = FrameTracker()
    step(tracker, instances([LEFT], [0]))
    shown = step(tracker, instances([LEFT, LEFT], [0, 0], [0.4, 0.8], [1, 2]))
    assert (shown.ids.tolist(), shown.instances.class_ids.tolist()) == ([0], [2])
    assert tracker.tracks.instances.class_ids.tolist() == [2]


def test_retired_ids_are_not_used_again() -> None:
    tracker = FrameTracker(retire_after=2)
    step(tracker, instances([LEFT], [0]))
    step(tracker, NOTHING)
    step(tracker, NOTHING)
    assert len(tracker.tracks) == 1
    step(tracker, NOTHING)
    assert len(tracker.tracks) == 0
    assert step(tracker, instances([LEFT], [0])).ids.tolist() == [1]


def test_tells_how_masks_are_made() -> None:
    assert FrameTracker.tanh_passes == 2
