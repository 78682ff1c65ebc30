"""The evaluation against its slow twin, on random videos."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import slow_evaluation as slow
from slow_evaluation import Thing

from stmask_deploy.datasets.annotations import Annotations, Category, Track, Video
from stmask_deploy.datasets.segmentation import encode
from stmask_deploy.evaluation.evaluate import evaluate

FRAMES, CLASSES = 4, (3, 7, 8)


def random_things(rng: np.random.Generator, size: tuple[int, int], sides: tuple[int, int]
                  ) -> tuple[list[Thing], list[Thing]]:
    """Rectangles in two or three videos; what is found are shifted, relabelled, doubled or invented rectangles."""
    true: list[Thing] = []
    found: list[Thing] = []
    for video in range(int(rng.integers(2, 4))):
        for _ in range(int(rng.integers(0 if video else 1, 5))):
            corner, sides_px = rng.integers(0, np.array(size) - sides[0]), rng.integers(*sides, 2)
            category = int(rng.choice(CLASSES[:2]))
            present = rng.random(FRAMES) < 0.8
            true.append(Thing(video, category, rectangles(corner, sides_px, size, present),
                              is_crowd=bool(rng.random() < 0.15)))
            if rng.random() < 0.3:  # a crowd around it, which must not take what belongs to it
                true.insert(int(rng.integers(len(true))), Thing(
                    video, category, rectangles(corner - sides[0], sides_px + 2 * sides[0], size, present),
                    is_crowd=True))
            for _ in range(int(rng.integers(0, 4))):
                shift = rng.integers(-1, 2, 2) * max(1, sides[0] // 8)
                found.append(Thing(video, category if rng.random() < 0.8 else int(rng.choice(CLASSES)),
                                   rectangles(corner + shift, sides_px, size, present ^ (rng.random(FRAMES) < 0.1)),
                                   score=int(rng.integers(1, 8)) / 8))  # equal scores are common
        found.append(Thing(video, CLASSES[0], rectangles(rng.integers(0, size), rng.integers(*sides, 2), size,
                                                         rng.random(FRAMES) < 0.5), score=rng.random()))
    order = rng.permutation(len(found))
    for identity, row in enumerate(order):
        found[row].identity = identity
    return true, [found[row] for row in order]


def rectangles(corner: np.ndarray, sides: np.ndarray, size: tuple[int, int], present: np.ndarray) -> np.ndarray:
    """(FRAMES, H, W); a rectangle that moves to the right where it is present."""
    masks = np.zeros((FRAMES, *size), np.bool_)
    (y, x), (h, w) = corner.tolist(), sides.tolist()
    for frame in np.flatnonzero(present):
        masks[frame, max(0, y):max(0, y + h), max(0, x + frame):max(0, x + frame + w)] = True
    return masks


def as_annotations(true: list[Thing], size: tuple[int, int], num_videos: int) -> Annotations:
    videos = tuple(Video(video, *size, FRAMES, tuple(f"{video}/{frame}.jpg" for frame in range(FRAMES)))
                   for video in range(num_videos))
    tracks = tuple(Track(row, thing.video, thing.category, thing.is_crowd,
                         tuple(encode(mask) if mask.any() else None for mask in thing.masks))
                   for row, thing in enumerate(true))
    return Annotations(Path("random.json"), tuple(Category(one, f"class {one}") for one in CLASSES), videos, tracks)


def as_entries(found: list[Thing]) -> list[dict[str, object]]:
    # Masks without a pixel stay masks here: they have to count as null does.
    return [{"video_id": thing.video, "category_id": thing.category, "score": thing.score,
             "instance_id": thing.identity, "segmentations": [encode(mask) for mask in thing.masks]}
            for thing in found]


def between(low: float, high: float) -> Callable[[float], bool]:
    return lambda area: low <= area <= high


def percent(value: float | None) -> object:
    return value if value is None else pytest.approx(100 * value, abs=1e-9)


@pytest.mark.parametrize("seed", range(24))
def test_same_as_the_slow_twin(seed: int) -> None:
    # Two cases have pictures large enough for the three ranges of area.
    size, sides = ((300, 500), (90, 290)) if seed % 20 == 0 else ((12, 16), (3, 9))
    true, found = random_things(np.random.default_rng(seed), size, sides)
    result = evaluate(as_annotations(true, size, 3), as_entries(found), shown_score=0.5)
    ranges = {"ap_small": between(0, 128 ** 2), "ap_medium": between(128 ** 2, 256 ** 2),
              "ap_large": between(256 ** 2, 1e10)}
    per_class = {name: [] for name in ("ap", "ap50", "ap75", "ar1", "ar10", *ranges)}
    for category, row in zip(CLASSES, result.per_class, strict=True):
        expected = {
            "ap": slow.average_precision(true, found, category, slow.THRESHOLDS),
            "ap50": slow.average_precision(true, found, category, [0.5]),
            "ap75": slow.average_precision(true, found, category, [0.75]),
            "ar1": slow.average_recall(true, found, category, 1),
            "ar10": slow.average_recall(true, found, category, 10),
            **{name: slow.average_precision(true, found, category, slow.THRESHOLDS, in_range)
               for name, in_range in ranges.items()}}
        assert row.category_id == category
        for name, value in expected.items():
            assert getattr(row, name) == percent(value), (category, name)
            per_class[name].append(value)
    for name, values in per_class.items():
        assert getattr(result, name) == percent(slow.mean(values)), name


@pytest.mark.parametrize("seed", range(40, 52))
def test_identities_are_those_of_the_slow_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    true, found = random_things(rng, (12, 16), (3, 9))
    # Distinct overlaps: the definition leaves open which of two equal ones is matched.
    for thing in found:
        thing.masks ^= rng.random(thing.masks.shape) < 0.03
    result = evaluate(as_annotations(true, (12, 16), 3), as_entries(found), shown_score=0.5).identities
    expected = slow.follow(true, [thing for thing in found if thing.score >= 0.5])
    assert (result.switches, result.object_frames, result.matched_frames) == (
        expected.switches, expected.object_frames, expected.matched)
    assert result.iou_sum == pytest.approx(expected.iou_sum)
