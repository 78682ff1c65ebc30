"""Average precision on cases worked out by hand. A and B are apart; each is 10 x 10 = 100 pixels in each frame."""
from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from tiny_dataset import dataset, entry

from stmask_deploy.datasets.annotations import Annotations
from stmask_deploy.errors import InputError
from stmask_deploy.evaluation.evaluate import evaluate
from stmask_deploy.evaluation.evaluation import Evaluation

CAT, DOG = 3, 8
A, B = (0, 0, 10, 10), (0, 20, 10, 10)
NOWHERE = (15, 35, 2, 2)
TWO_CATS = dataset((1, CAT, [A, A]), (1, CAT, [B, B]))


def assert_ap(result: Evaluation, **expected: float | None) -> None:
    found = {name: getattr(result, name) for name in expected}
    assert found == {name: value if value is None else pytest.approx(value) for name, value in expected.items()}


def test_perfect_is_100() -> None:
    annotations = dataset((1, CAT, [A, A]), (1, DOG, [B, None]), (2, DOG, [None, A]), videos=(1, 2))
    entries = [entry(1, CAT, 0.9, [A, A]), entry(1, DOG, 0.2, [B, None]), entry(2, DOG, 0.6, [None, A])]
    result = evaluate(annotations, entries)
    assert_ap(result, ap=100, ap50=100, ap75=100, ap_small=100, ap_medium=None, ap_large=None, ar1=100, ar10=100)
    assert [(one.name, one.category_id, one.tracks, one.ap) for one in result.per_class] == [
        ("cat", CAT, 1, pytest.approx(100)), ("dog", DOG, 2, pytest.approx(100))]
    assert (result.videos, result.results, result.identities.tracks) == (2, 3, 3)


def test_nothing_found_is_0() -> None:
    assert_ap(evaluate(TWO_CATS, []), ap=0, ap50=0, ar1=0, ar10=0, ap_large=None)


def test_half_of_the_tracks() -> None:
    # Recall 0.5 at precision 1: the 51 recall points from 0 to 0.50 hold 1, the other 50 hold 0.
    assert_ap(evaluate(TWO_CATS, [entry(1, CAT, 0.9, [A, A])]), ap=100 * 51 / 101, ap50=100 * 51 / 101, ar10=50)


def test_frames_are_added_up_before_the_division() -> None:
    # 100 of 100 pixels in the first frame, nothing of 50 in the second: 100 / 150, not the mean of 1 and 0.
    annotations = dataset((1, CAT, [A, (0, 0, 10, 5)]))
    assert_ap(evaluate(annotations, [entry(1, CAT, 0.9, [A, None])]), ap50=100, ap75=0, ap=40)  # 0.50 to 0.65


def test_what_is_found_where_nothing_is_counts_in_the_union() -> None:
    annotations = dataset((1, CAT, [A, None]))
    assert_ap(evaluate(annotations, [entry(1, CAT, 0.9, [A, A])]), ap50=100, ap=10)  # 100 / 200 is just 0.50


def test_an_iou_below_the_lowest_threshold() -> None:
    annotations = dataset((1, CAT, [A, A]))
    assert_ap(evaluate(annotations, [entry(1, CAT, 0.9, [(0, 0, 10, 4), A])]), ap50=100)  # 140 / 200
    assert_ap(evaluate(annotations, [entry(1, CAT, 0.9, [(0, 0, 10, 4)] * 2)]), ap50=0)  # 80 / 200


def test_the_wrong_class() -> None:
    result = evaluate(TWO_CATS, [entry(1, DOG, 0.9, [A, A]), entry(1, CAT, 0.8, [B, B])])
    assert_ap(result, ap=100 * 51 / 101, ar10=50)
    cat, dog = result.per_class
    assert cat.ap == pytest.approx(100 * 51 / 101)
    assert dog.ap is None and dog.tracks == 0  # no dog to be found: not part of the mean
    confused = evaluate(dataset((1, CAT, [A, A]), (1, DOG, [B, B])),
                        [entry(1, DOG, 0.9, [A, A]), entry(1, CAT, 0.8, [B, B])])
    assert_ap(confused, ap=0, ar10=0)


def test_a_duplicate_is_false() -> None:
    once = [entry(1, CAT, 0.9, [A, A]), entry(1, CAT, 0.8, [B, B])]
    assert_ap(evaluate(TWO_CATS, [*once, entry(1, CAT, 0.7, [A, A])]), ap=100)  # after everything is found
    # Hit, false, hit: precision 1 up to recall 0.5, then 2/3 for the other 50 points.
    assert_ap(evaluate(TWO_CATS, [*once, entry(1, CAT, 0.85, [A, A])]), ap=100 * (51 + 50 * 2 / 3) / 101)


def test_false_results_cost_more_at_a_high_score() -> None:
    hits = [entry(1, CAT, 0.5, [A, A]), entry(1, CAT, 0.4, [B, B])]
    assert_ap(evaluate(TWO_CATS, [*hits, entry(1, CAT, 0.3, [NOWHERE] * 2)]), ap=100)
    assert_ap(evaluate(TWO_CATS, [*hits, entry(1, CAT, 0.6, [NOWHERE] * 2)]), ap=100 * 2 / 3)


def test_the_better_score_takes_the_track() -> None:
    # The worse mask has the better score and takes the track up to 0.65; the better one is then false.
    annotations = dataset((1, CAT, [A, A]))
    worse, better = [A, (0, 0, 10, 4)], [A, A]  # 140 / 200 and 1
    result = evaluate(annotations, [entry(1, CAT, 0.5, better), entry(1, CAT, 0.9, worse)])
    assert_ap(result, ap50=100, ap75=50, ap=(5 * 100 + 5 * 50) / 10)  # 0.50 to 0.70 hit by the worse


def test_recall_of_the_first_and_the_first_ten() -> None:
    in_two_videos = dataset((1, CAT, [A, A]), (1, CAT, [B, B]), (2, CAT, [A, A]), videos=(1, 2))
    false = [entry(1, CAT, 0.9, [NOWHERE] * 2) for _ in range(9)]
    entries = [*false, entry(1, CAT, 0.8, [A, A]), entry(1, CAT, 0.7, [B, B]), entry(2, CAT, 0.1, [A, A])]
    assert_ap(evaluate(in_two_videos, entries), ar1=100 / 3, ar10=200 / 3)


def test_only_the_best_hundred_of_a_class_and_video_count() -> None:
    false = [entry(1, CAT, 0.9, [NOWHERE] * 2) for _ in range(99)]
    hits = [entry(1, CAT, 0.8, [A, A]), entry(1, CAT, 0.7, [B, B])]
    assert_ap(evaluate(TWO_CATS, [*false, *hits]), ap=100 * 51 / 101 / 100)  # one hit at precision 1 / 100


def test_a_crowd_is_neither_to_be_found_nor_false() -> None:
    annotations = dataset((1, CAT, [A, A]), (1, CAT, [B, B]), crowds=(1,))
    entries = [entry(1, CAT, 0.9, [B, B]), entry(1, CAT, 0.8, [B, B]), entry(1, CAT, 0.7, [A, A])]
    result = evaluate(annotations, entries)
    assert_ap(result, ap=100, ar10=100)
    assert result.per_class[0].tracks == result.identities.tracks == 1
    assert_ap(evaluate(dataset(*[(1, CAT, [A, A])]), entries), ap=100 / 3)  # without the crowd both are false
    in_it = entry(1, CAT, 0.8, [(0, 20, 4, 4)] * 2)  # where COCO divides by the result's area, YouTube-VIS does not
    assert_ap(evaluate(annotations, [in_it, entry(1, CAT, 0.7, [A, A])]), ap=50)


def test_a_track_to_be_found_goes_before_a_crowd() -> None:
    # Of the track 160 / 200 is found; the result is the crowd to the pixel.
    annotations = dataset((1, CAT, [A, A]), (1, CAT, [(0, 0, 10, 8)] * 2), crowds=(1,))
    assert_ap(evaluate(annotations, [entry(1, CAT, 0.9, [(0, 0, 10, 8)] * 2)]), ap50=100, ap75=100, ap=70)


def test_ranges_of_area() -> None:
    size, small, medium, large = (300, 900), (0, 0, 10, 10), (0, 20, 128, 128), (0, 200, 256, 256)
    annotations = dataset((1, CAT, [small] * 2), (1, CAT, [medium, None]), (1, CAT, [large] * 2), size=size)
    found = [entry(1, CAT, 0.9, [medium, None], size), entry(1, CAT, 0.95, [(0, 500, 300, 300), None], size)]
    # Exactly 128^2 is small and medium, exactly 256^2 medium and large; frames without the object do not lower the
    # mean area. The false result is large and counts in no other range, though its score is the best.
    half = 100 * 51 / 101
    assert_ap(evaluate(annotations, found), ap_small=half, ap_medium=half, ap_large=0, ap=100 * 34 / 101 / 2)
    just_medium = [entry(1, CAT, 0.95, [(0, 500, 128, 128)] * 2, size), entry(1, CAT, 0.9, [small] * 2, size)]
    assert_ap(evaluate(annotations, just_medium), ap_small=half / 2, ap_medium=0, ap_large=0)
    below = dataset((1, CAT, [(0, 20, 128, 127)] * 2), size=size)
    assert_ap(evaluate(below, []), ap_small=0, ap_medium=None, ap_large=None)


def test_a_mask_without_pixels_is_no_mask() -> None:
    empty = (0, 0, 0, 0)
    annotations = dataset((1, CAT, [A, empty]))
    result = evaluate(annotations, [entry(1, CAT, 0.9, [A, empty]), entry(1, CAT, 0.95, [empty, empty])])
    assert_ap(result, ap=50, ar10=100)  # the one without any pixel is false
    assert result.identities.object_frames == 1


def test_some_of_the_videos() -> None:
    annotations = dataset((1, CAT, [A, A]), (2, CAT, [A, A]), videos=(1, 2))
    entries = [entry(1, CAT, 0.9, [A, A]), entry(2, CAT, 0.95, [B, B])]
    assert_ap(evaluate(annotations, entries, video_ids=[1]), ap=100)
    assert_ap(evaluate(annotations, entries, video_ids=[2]), ap=0)
    assert evaluate(annotations, entries, video_ids=[2]).results == 1


def test_as_json_and_as_text() -> None:
    result = evaluate(TWO_CATS, [entry(1, CAT, 0.9, [A, A])])
    loaded = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert (loaded["ap"], loaded["ap_large"], loaded["tracks"]) == (pytest.approx(100 * 51 / 101), None, 2)
    assert [one["name"] for one in loaded["classes"]] == ["cat", "dog"]
    assert loaded["identities"]["j"] == pytest.approx(50)
    assert result.summary() == "AP 50.5, AP50 50.5, AP75 50.5, 0.0 identity switches per ten tracks"
    table = "\n".join(result.lines())
    assert "all classes       2    50.5    50.5    50.5    50.5       -       -    50.0    50.0" in table
    assert "\ncat" in table and "\ndog" not in table  # there is no dog in the annotations


def test_every_class_is_one_line_of_the_table() -> None:
    result = evaluate(TWO_CATS, [])
    named = replace(result, per_class=tuple(replace(one, name=f"{one.name}\nfish") for one in result.per_class))
    assert [line[:10].rstrip() for line in named.lines()[2:5]] == ["all classe", "cat\\nfish", "identities"]


@pytest.mark.parametrize("change, message", [
    ({"video_id": 7}, r"list.json: \[1\]: video_id 7 is not among the videos of tiny.json"),
    ({"category_id": 4}, r"\[1\]: category_id 4 is not among the categories"),
    ({"score": float("nan")}, r"\[1\]: expected 'score' to be a finite number"),
    ({"score": None}, r"\[1\]: expected 'score' to be a finite number, found null"),
    ({"segmentations": [None]}, r"\[1\]: expected 2 segmentations"),
    ({"segmentations": [None, {"size": [20, 41], "counts": "d"}]}, r"\[1\]: segmentations\[1\]: expected size"),
    ({"segmentations": [None, {"size": [20, 40], "counts": "4"}]}, r"segmentations\[1\]: .*do not add up"),
    ({"instance_id": "a"}, r"\[1\]: expected 'instance_id'"),
])
def test_an_entry_that_does_not_fit_is_named(change: dict[str, Any], message: str) -> None:
    good = entry(1, CAT, 0.9, [A, A])
    with pytest.raises(InputError, match=message):
        evaluate(TWO_CATS, [good, {**good, **change}], where="list.json")


def test_annotations_are_needed() -> None:
    empty = dataset()
    assert isinstance(empty, Annotations)
    with pytest.raises(InputError, match="tiny.json has no annotations"):
        evaluate(empty, [])
