from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from run_sample import Shown, instance, records, run_file, write_lines
from tiny_dataset import Rectangle

from stmask_deploy.errors import InputError
from stmask_deploy.evaluation.agreement import Agreement
from stmask_deploy.evaluation.compare_runs import compare_runs
from stmask_deploy.evaluation.run_file import read_run_file

A, B = (0, 0, 10, 10), (0, 20, 10, 10)
FRAMES: list[list[Shown]] = [[(1, 1, 0.9, A), (2, 2, 0.6, B)], [(1, 1, 0.8, A)], [(2, 2, 0.5, B), (1, 1, 0.7, A)]]


def compare(folder: Path, reference: list[list[Shown]], found: list[list[Shown]]) -> Agreement:
    return compare_runs(run_file(folder / "a", reference), run_file(folder / "b", found, source="another name"))


def test_a_run_agrees_with_itself(tmp_path: Path) -> None:
    result = compare(tmp_path, FRAMES, FRAMES)
    assert result == Agreement(
        frames=3, reference_rows=5, rows=5, matched=5, mean_iou=100, lowest_iou=100, same_class=100,
        mean_score_difference=0, highest_score_difference=0, mean_box_difference_px=0, highest_box_difference_px=0,
        reference_tracks=2, tracks=2, switches=0, switches_per_ten_tracks=0, ap=100, ap50=100, ap75=100)
    assert (result.recall, result.precision) == (100, 100)


@pytest.mark.parametrize("seed", range(5))
def test_so_does_a_run_full_of_equal_and_overlapping_masks(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    places = [A, (0, 1, 10, 10), (0, 2, 9, 10), B, (0, 0, 0, 0)]
    frames = [[(identity, int(rng.integers(1, 4)), float(rng.integers(1, 5)) / 5, places[rng.integers(len(places))])
               for identity in rng.permutation(8).tolist() if rng.random() < 0.7] for _ in range(6)]
    result = compare(tmp_path, frames, frames)
    assert result.matched == result.rows == result.reference_rows > 0
    assert (result.mean_iou, result.switches, result.highest_score_difference) == (100, 0, 0)
    assert result.ap == pytest.approx(100)


def test_so_does_a_long_run_with_more_identities_than_youtube_vis_takes(tmp_path: Path) -> None:
    frames: list[list[Shown]] = [[(index // 2, 1, 0.5 + index / 1000, A)] for index in range(240)]
    result = compare(tmp_path, frames, frames)
    assert (result.tracks, result.matched, result.switches, result.ap) == (120, 240, 0, pytest.approx(100))


def test_other_numbers_for_the_same_objects(tmp_path: Path) -> None:
    renamed = [[(identity + 5, *rest) for identity, *rest in rows] for rows in FRAMES]
    result = compare(tmp_path, FRAMES, renamed)
    assert (result.recall, result.precision, result.switches, result.ap) == (100, 100, 0, pytest.approx(100))


def test_rows_that_are_missing_or_added(tmp_path: Path) -> None:
    less = compare(tmp_path, FRAMES, [FRAMES[0], [], FRAMES[2]])
    assert (less.matched, less.recall, less.precision) == (4, 80, 100)
    more = compare(tmp_path, [FRAMES[0], [], FRAMES[2]], FRAMES)
    assert (more.matched, more.recall, more.precision) == (4, 100, 80)


def test_identities_correspond_one_to_one(tmp_path: Path) -> None:
    # Object 1 is 5 in two frames and 4 in the other: it corresponds to 5, the row of 4 is not matched.
    reference: list[list[Shown]] = [[(1, 1, 0.9, A)]] * 3
    found: list[list[Shown]] = [[(5, 1, 0.9, A)], [(4, 1, 0.9, A)], [(5, 1, 0.9, A)]]
    result = compare(tmp_path, reference, found)
    assert (result.matched, result.recall, result.switches, result.switches_per_ten_tracks) == (2, 200 / 3, 2, 20)
    assert (result.reference_tracks, result.tracks) == (1, 2)
    assert (result.ap50, result.ap75) == (100, 0)  # two of three frames


@pytest.mark.parametrize("places", [[A, (0, 0, 10, 8), (0, 0, 10, 8)], [(0, 0, 10, 8), A]])
def test_most_frames_and_then_most_overlap_decide(tmp_path: Path, places: list[Rectangle]) -> None:
    # Identity 4 is the first to be shown on the object; 5 takes over.
    found: list[list[Shown]] = [[(5 if frame else 4, 1, 0.9, place)] for frame, place in enumerate(places)]
    result = compare(tmp_path, [[(1, 1, 0.9, A)]] * len(places), found)
    assert result.matched == len(places) - 1
    assert result.mean_iou == pytest.approx(100 if places[-1] == A else 80)


def test_differences_of_matched_rows(tmp_path: Path) -> None:
    found: list[list[Shown]] = [[(1, 1, 0.85, (0, 0, 10, 8)), (2, 1, 0.6, B)], [(1, 1, 0.8, A)],
                                [(1, 1, 0.7, (0, 0, 4, 10)), (2, 2, 0.5, B)]]
    result = compare(tmp_path, FRAMES, found)  # of object 1 an IoU of 0.8, 1 and 0.4, which is no match
    assert (result.matched, result.same_class) == (4, 75)
    assert (result.mean_iou, result.lowest_iou) == (pytest.approx(95), pytest.approx(80))
    assert (result.mean_score_difference, result.highest_score_difference) == (
        pytest.approx(0.05 / 4), pytest.approx(0.05))
    assert (result.mean_box_difference_px, result.highest_box_difference_px) == (0.5, 2)


def test_nothing_shown_in_either_or_both(tmp_path: Path) -> None:
    nothing: list[list[Shown]] = [[], [], []]
    neither = compare(tmp_path, nothing, nothing)
    assert (neither.recall, neither.precision, neither.ap, neither.switches, neither.mean_iou) == (
        None, None, None, 0, None)
    assert (compare(tmp_path, FRAMES, nothing).recall, compare(tmp_path, FRAMES, nothing).ap) == (0, 0)
    assert (compare(tmp_path, nothing, FRAMES).precision, compare(tmp_path, nothing, FRAMES).ap) == (0, None)


def test_as_json_and_as_text(tmp_path: Path) -> None:
    result = compare(tmp_path, FRAMES, FRAMES)
    loaded = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert (loaded["recall"], loaded["precision"], loaded["matched"], loaded["switches"]) == (100, 100, 5, 0)
    assert result.summary() == "recall 100.0, precision 100.0, mask IoU 100.0, 0 identity switches, AP 100.0"
    assert "rows: 5 matched, recall 100.0, precision 100.0" in result.lines()


def test_runs_over_something_else_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has 3 frames, .* has 2"):
        compare(tmp_path, FRAMES, FRAMES[:2])
    with pytest.raises(InputError, match="has 20 pixels in height, .* has 40"):
        compare_runs(run_file(tmp_path / "a", FRAMES), run_file(tmp_path / "b", FRAMES, size=(40, 40)))


def test_other_class_names_are_refused(tmp_path: Path) -> None:
    lines = records([[]] * 3)
    lines[1]["instances"] = [{**instance(1, 2, 0.5, A), "label": "horse"}]
    other = read_run_file(write_lines(tmp_path / "b" / "results.jsonl", lines))
    with pytest.raises(InputError, match="has 'horse' for class 2, which is 'dog' in"):
        compare_runs(run_file(tmp_path / "a", FRAMES), other)
