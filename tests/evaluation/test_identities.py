from __future__ import annotations

import numpy as np
import pytest
from tiny_dataset import Rectangle, dataset, entry

from stmask_deploy.evaluation.evaluate import evaluate
from stmask_deploy.evaluation.identities import IdentityScores, match_frame

A, B = (0, 0, 10, 10), (0, 20, 10, 10)


def identities(tracks: list[list[Rectangle | None]], found: list[tuple[int | None, float, list[Rectangle | None]]],
               crowds: tuple[int, ...] = (), shown_score: float = 0.3) -> IdentityScores:
    """Found are (instance id or None, score, rectangles); all are of another class than the tracks."""
    frames = len(tracks[0])
    annotations = dataset(*[(1, 3, rectangles) for rectangles in tracks], frames=frames, crowds=crowds)
    entries = [entry(1, 8, score, rectangles, instance_id=identity) for identity, score, rectangles in found]
    return evaluate(annotations, entries, shown_score=shown_score).identities


def test_the_class_does_not_matter() -> None:
    result = identities([[A, A]], [(4, 0.9, [A, A])])
    assert result == IdentityScores(tracks=1, switches=0, object_frames=2, matched_frames=2, iou_sum=2.0)
    assert (result.j, result.mean_iou, result.matched_percent) == (100, 100, 100)


def test_every_change_of_identity_is_a_switch() -> None:
    # 4, 5, 5, gap, 4: two switches; coming back under the identity of before a gap is none.
    result = identities([[A] * 5], [(4, 0.9, [A, None, None, None, A]), (5, 0.9, [None, A, A, None, None])])
    assert (result.switches, result.switches_per_ten_tracks) == (2, 20)
    assert (result.matched_frames, result.object_frames) == (4, 5)
    assert identities([[A] * 3], [(4, 0.9, [A, None, A])]).switches == 0


def test_two_objects_that_swap_identities() -> None:
    result = identities([[A, A, A], [B, B, B]], [(1, 0.9, [A, B, B]), (2, 0.8, [B, A, A])])
    assert (result.switches, result.switches_per_ten_tracks) == (2, 10)


def test_entries_of_one_instance_id_are_one_identity() -> None:
    assert identities([[A, A]], [(1, 0.9, [A, None]), (1, 0.8, [None, A])]).switches == 0
    assert identities([[A, A]], [(None, 0.9, [A, None]), (None, 0.8, [None, A])]).switches == 1  # rows of their own
    assert identities([[A, A]], [(0, 0.9, [A, None]), (None, 0.8, [None, A])]).switches == 1  # nor is that one 0


def test_entries_of_a_low_score_are_not_shown() -> None:
    found = [(1, 0.9, [A, None]), (2, 0.29, [None, A])]
    assert identities([[A, A]], found).matched_frames == 1
    assert identities([[A, A]], found, shown_score=0.29).switches == 1


def test_mask_quality() -> None:
    # IoU 0.8, then 0.4 (not matched), then nothing found, then no object.
    result = identities([[A, A, A, None]], [(1, 0.9, [(0, 0, 10, 8), (0, 0, 10, 4), None, A])])
    assert result.mean_iou == pytest.approx(80)
    assert result.j == pytest.approx(80 / 3)
    assert result.matched_percent == pytest.approx(100 / 3)


def test_objects_of_one_pixel_count() -> None:
    pixel = (3, 4, 1, 1)
    result = identities([[pixel, pixel, None]], [(1, 0.9, [pixel, None, None])])
    assert (result.object_frames, result.matched_frames, result.j) == (2, 1, 50)


def test_crowds_are_left_out() -> None:
    result = identities([[A], [B]], [(1, 0.9, [B])], crowds=(1,))
    assert (result.tracks, result.object_frames, result.matched_frames) == (1, 1, 0)


def test_nothing_to_say() -> None:
    nothing = identities([[A]], [])
    assert (nothing.mean_iou, nothing.j, nothing.switches_per_ten_tracks) == (None, 0, 0)
    assert (IdentityScores().j, IdentityScores().switches_per_ten_tracks) == (None, None)


def test_sums_over_videos() -> None:
    assert IdentityScores(1, 2, 3, 4, 0.5) + IdentityScores(10, 20, 30, 40, 5) == IdentityScores(11, 22, 33, 44, 5.5)


@pytest.mark.parametrize("ious, pairs", [
    ([[0.6, 0.9], [0.5, 0.8]], [(0, 1), (1, 0)]),  # the highest first, the other takes what is left
    ([[0.6, 0.9], [0.49, 0.8]], [(0, 1)]),
    ([[0.7, 0.7], [0.7, 0.7]], [(0, 0), (1, 1)]),
    ([[0.6], [0.6]], [(0, 0)]),
])
def test_pairs_of_a_frame(ious: list[list[float]], pairs: list[tuple[int, int]]) -> None:
    assert match_frame(np.array(ious)) == pairs


def test_a_frame_without_rows() -> None:
    assert match_frame(np.zeros((0, 3))) == match_frame(np.zeros((3, 0))) == []
