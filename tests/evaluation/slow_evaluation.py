"""YouTube-VIS average precision and the identity measures as their definitions read: plain loops over boolean masks.

Nothing here is taken from the package, so that a mistake has to be made twice to go unseen.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

THRESHOLDS = np.linspace(0.5, 0.95, 10).tolist()  # as published: the ninth is a hair below 0.9
RECALLS = np.linspace(0, 1, 101).tolist()


@dataclass
class Thing:
    """An annotated object, or one that was found."""

    video: int
    category: int
    masks: NDArray[np.bool_]  # (frames, H, W), all False where it is not there
    score: float = 0.0  # of what was found
    identity: int = 0
    is_crowd: bool = False

    def mean_area(self) -> float:
        areas = [int(mask.sum()) for mask in self.masks if mask.any()]
        return sum(areas) / len(areas) if areas else 0.0


def sequence_iou(found: Thing, true: Thing) -> float:
    """Pixels of both over pixels of either, counted through the whole video."""
    both = int((found.masks & true.masks).sum())
    either = int((found.masks | true.masks).sum())
    return both / either if either else 0.0


def average_precision(true: Sequence[Thing], found: Sequence[Thing], category: int, thresholds: Sequence[float],
                      in_range: Callable[[float], bool] = lambda area: True) -> float | None:
    """Mean over the thresholds of the mean precision at 101 recalls; None where there is nothing to be found."""
    values = []
    for threshold in thresholds:
        verdicts, wanted = judge(true, found, category, threshold, 100, in_range)
        if not wanted:
            return None
        points = []  # (recall, precision) after each verdict
        hits = 0
        for count, is_hit in enumerate(verdicts, start=1):
            hits += is_hit
            points.append((hits / wanted, hits / count))
        for wanted_recall in RECALLS:
            values.append(max((precision for recall, precision in points if recall >= wanted_recall), default=0.0))
    return sum(values) / len(values)


def average_recall(true: Sequence[Thing], found: Sequence[Thing], category: int, most: int) -> float | None:
    """Mean over the thresholds of the share that is found among the `most` best of each video."""
    shares = []
    for threshold in THRESHOLDS:
        verdicts, wanted = judge(true, found, category, threshold, most, lambda area: True)
        if not wanted:
            return None
        shares.append(sum(verdicts) / wanted)
    return sum(shares) / len(shares)


def judge(true: Sequence[Thing], found: Sequence[Thing], category: int, threshold: float, most: int,
          in_range: Callable[[float], bool]) -> tuple[list[bool], int]:
    """Hit or false for everything found that counts, best score first over all videos; how many are to be found."""
    judged: list[tuple[float, bool]] = []
    wanted = 0
    for video in sorted({thing.video for thing in [*true, *found]}):
        here = [thing for thing in true if (thing.video, thing.category) == (video, category)]
        to_find = [thing for thing in here if not thing.is_crowd and in_range(thing.mean_area())]
        others = [thing for thing in here if thing.is_crowd or not in_range(thing.mean_area())]
        wanted += len(to_find)
        mine = sorted((thing for thing in found if (thing.video, thing.category) == (video, category)),
                      key=lambda thing: -thing.score)[:most]
        used: list[Thing] = []
        for one in mine:
            hit = best_partner(one, to_find, used, threshold)
            if hit is not None:
                used.append(hit)
                judged.append((one.score, True))
                continue
            ignored = best_partner(one, others, used, threshold)
            if ignored is not None:
                used += [] if ignored.is_crowd else [ignored]
            elif in_range(one.mean_area()):
                judged.append((one.score, False))
    return [is_hit for _, is_hit in sorted(judged, key=lambda pair: -pair[0])], wanted


def best_partner(one: Thing, candidates: Sequence[Thing], used: Sequence[Thing], threshold: float) -> Thing | None:
    best, best_iou = None, threshold
    for candidate in candidates:
        if not any(candidate is thing for thing in used) and sequence_iou(one, candidate) >= best_iou:
            best, best_iou = candidate, sequence_iou(one, candidate)
    return best


def mean(values: Sequence[float | None]) -> float | None:
    """Over the classes that have a value."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


@dataclass
class Followed:
    """Counts over frames."""

    switches: int = 0
    object_frames: int = 0
    matched: int = 0
    iou_sum: float = 0.0


def follow(true: Sequence[Thing], found: Sequence[Thing]) -> Followed:
    """Frame by frame: the pair that overlaps most is matched, then the next among the rest, down to an IoU of 0.5."""
    total = Followed()
    for video in sorted({thing.video for thing in true}):
        objects = [thing for thing in true if thing.video == video and not thing.is_crowd]
        shown = [thing for thing in found if thing.video == video]
        known_as: dict[int, int] = {}
        for frame in range(len(objects[0].masks) if objects else 0):
            total.object_frames += sum(bool(thing.masks[frame].any()) for thing in objects)
            free_objects, free_shown = set(range(len(objects))), set(range(len(shown)))
            while True:
                pairs = [(_iou(objects[a].masks[frame], shown[b].masks[frame]), a, b)
                         for a in free_objects for b in free_shown]
                iou, a, b = max(pairs, default=(0.0, 0, 0))
                if iou < 0.5:
                    break
                free_objects.remove(a)
                free_shown.remove(b)
                total.matched += 1
                total.iou_sum += iou
                total.switches += known_as.get(a, shown[b].identity) != shown[b].identity
                known_as[a] = shown[b].identity
    return total


def _iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    either = int((a | b).sum())
    return int((a & b).sum()) / either if either else 0.0
