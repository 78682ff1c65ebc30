"""Evaluates results against annotations: average precision over videos, identity switches, mask quality."""
from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ..datasets.annotations import Annotations, Category, Track
from ..errors import InputError
from .average_precision import PrecisionRecall, precision_recall
from .evaluation import ClassScores, Curves, Evaluation
from .identities import IdentityScores, identity_scores
from .matching import Matches, match_results
from .overlap import Overlap
from .predictions import Prediction, check_entries

SHOWN_SCORE = 0.3  # a result counts as shown from this score on, which is also stmask-run's drawing threshold
MAX_RESULTS = 100  # per class and video, best first
# In pixels, by the mean mask area over the frames where an object is visible. Each limit belongs to both its ranges.
AREA_RANGES = {"all": (0.0, np.inf), "small": (0.0, 128.0 ** 2), "medium": (128.0 ** 2, 256.0 ** 2),
               "large": (256.0 ** 2, np.inf)}


def evaluate(annotations: Annotations, entries: Sequence[Mapping[str, Any]], *,
             video_ids: Collection[int] | None = None, shown_score: float = SHOWN_SCORE,
             max_results: int = MAX_RESULTS, where: str = "results") -> Evaluation:
    """Evaluate a result list on a dataset.

    Args:
        annotations: the ground truth.
        entries: of a YouTube-VIS result list: `video_id` and `category_id` as in the annotation file, `score`,
            `segmentations`, and optionally `instance_id`.
        video_ids: evaluate on these videos only; None means all. Videos without entries count as empty results.
        shown_score: entries with a lower score are left out of identity and mask scores, since they are usually not
            shown; average precision uses all.
        max_results: per class and video, best first, used for average precision; 100 in YouTube-VIS.
        where: the name of the list, for messages.

    Raises:
        InputError: the file has no annotations, an entry does not fit it, or `shown_score` is NaN.
    """
    if np.isnan(shown_score):
        raise InputError("the score from which results count as shown is not a number")
    if not annotations.has_tracks:
        raise InputError(f"{annotations.path} has no annotations, only videos; results cannot be compared with it")
    videos = sorted((video for video in annotations.videos if video_ids is None or video.id in video_ids),
                    key=lambda video: video.id)  # breaks ties between equal scores, as in COCO
    by_video: dict[int, list[Prediction]] = {video.id: [] for video in videos}
    predictions = check_entries(entries, annotations, where)
    for prediction in predictions:
        if prediction.video_id in by_video:
            by_video[prediction.video_id].append(prediction)
    matches: dict[tuple[int, str], list[Matches]] = {}
    identities = IdentityScores()
    for video in videos:
        found = sorted(by_video[video.id], key=lambda prediction: -prediction.score)
        tracks = annotations.tracks_of(video.id)
        overlap = Overlap.measure([one.segmentations for one in found], [one.segmentations for one in tracks],
                                  video.length)
        _add_matches(matches, overlap, found, tracks, max_results)
        identities += _identities(overlap, found, tracks, shown_score)
    curves = _curves(annotations.categories, matches, max_results)
    scored = [track for video in videos for track in annotations.tracks_of(video.id) if not track.is_crowd]
    per_class = tuple(
        ClassScores.of({name: [of_classes[row]] for name, of_classes in curves.items()}, name=category.name,
                       category_id=category.id, tracks=sum(track.category_id == category.id for track in scored))
        for row, category in enumerate(annotations.categories))
    return Evaluation.of(curves, videos=len(videos), results=sum(map(len, by_video.values())), per_class=per_class,
                         identities=identities, shown_score=shown_score)


def _add_matches(matches: dict[tuple[int, str], list[Matches]], overlap: Overlap, found: Sequence[Prediction],
                 tracks: Sequence[Track], max_results: int) -> None:
    """Append the matches of one video for each of its classes and every area range."""
    is_crowd = np.array([track.is_crowd for track in tracks], np.bool_)
    ious, areas, truth_areas = overlap.track_iou(), overlap.mean_areas, overlap.mean_truth_areas
    scores = np.array([one.score for one in found], np.float64)
    found_classes = np.array([one.category_id for one in found], np.int64)
    track_classes = np.array([track.category_id for track in tracks], np.int64)
    for category_id in sorted({*found_classes.tolist(), *track_classes.tolist()}):
        rows = np.flatnonzero(found_classes == category_id)[:max_results]
        columns = np.flatnonzero(track_classes == category_id)
        for name, (low, high) in AREA_RANGES.items():
            matched = match_results(
                ious[np.ix_(rows, columns)], scores[rows], ~((low <= areas[rows]) & (areas[rows] <= high)),
                is_crowd[columns], ~((low <= truth_areas[columns]) & (truth_areas[columns] <= high)))
            matches.setdefault((category_id, name), []).append(matched)


def _identities(overlap: Overlap, found: Sequence[Prediction], tracks: Sequence[Track], shown_score: float
                ) -> IdentityScores:
    rows = np.array([row for row, one in enumerate(found) if one.score >= shown_score], np.int64)
    columns = np.array([column for column, track in enumerate(tracks) if not track.is_crowd], np.int64)
    return identity_scores(overlap.select(rows, columns), [found[row].identity for row in rows.tolist()])


def _curves(categories: Sequence[Category], matches: Mapping[tuple[int, str], list[Matches]], max_results: int
            ) -> Curves:
    def of_classes(area: str, most: int) -> list[PrecisionRecall | None]:
        return [precision_recall(matches.get((category.id, area), []), most) for category in categories]

    return {**{area: of_classes(area, max_results) for area in AREA_RANGES},
            "first": of_classes("all", 1), "first ten": of_classes("all", 10)}
