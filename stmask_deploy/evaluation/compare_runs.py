"""Compares two runs over one video. No annotations are needed: the first run serves as ground truth."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from ..datasets.annotations import Annotations, Category, Track, Video
from ..datasets.segmentation import Segmentation
from ..errors import InputError
from ..one_to_one import one_to_one
from .agreement import Agreement
from .evaluate import evaluate
from .evaluation import Evaluation
from .identities import MATCH_IOU
from .overlap import Overlap
from .run_file import Row, RunFile

VIDEO_ID = 1
RowTrack = list[Row | None]  # the row of one identity in every frame, None where absent


def compare_runs(reference: RunFile, found: RunFile) -> Agreement:
    """Compare the results of two runs over the same frames.

    Raises:
        InputError: the numbers or sizes of the frames differ, or the runs name their classes differently.
    """
    _check_same_frames(reference, found)
    class_names = _class_names(reference, found)
    tracks, others = _tracks(reference), _tracks(found)
    overlap = Overlap.measure(_masks(others), _masks(tracks), len(reference.frames))
    pairs = _matched_rows(others, tracks, overlap)
    evaluation = _evaluate(reference, found, class_names) if (overlap.truth_areas > 0).any() else None
    return Agreement(
        frames=len(reference.frames), reference_rows=int((overlap.truth_areas > 0).sum()),
        rows=int((overlap.areas > 0).sum()), matched=len(pairs), **_differences(pairs),
        reference_tracks=int((overlap.truth_areas > 0).any(0).sum()), tracks=int((overlap.areas > 0).any(0).sum()),
        **_scores(evaluation))


def _scores(evaluation: Evaluation | None) -> dict[str, Any]:
    """None if the reference run shows no objects."""
    if evaluation is None:
        return {"switches": 0, "switches_per_ten_tracks": None, "ap": None, "ap50": None, "ap75": None}
    identities = evaluation.identities
    return {"switches": identities.switches, "switches_per_ten_tracks": identities.switches_per_ten_tracks,
            "ap": evaluation.ap, "ap50": evaluation.ap50, "ap75": evaluation.ap75}


def _tracks(run: RunFile) -> list[RowTrack]:
    tracks: dict[int, RowTrack] = {}
    for frame, rows in enumerate(run.frames):
        for row in rows:
            tracks.setdefault(row.identity, [None] * len(run.frames))[frame] = row
    return list(tracks.values())


def _masks(tracks: Sequence[RowTrack]) -> list[list[Segmentation | None]]:
    return [[row.segmentation if row else None for row in rows] for rows in tracks]


def _matched_rows(found: Sequence[RowTrack], tracks: Sequence[RowTrack], overlap: Overlap
                  ) -> list[tuple[Row, Row, float]]:
    """Rows of corresponding identities whose masks match in a frame, found and reference, with their mask IoU."""
    near: dict[tuple[int, int], list[tuple[int, float]]] = {}  # indices of two identities -> frames and IoUs
    for frame, (rows, columns, ious) in enumerate(overlap.frame_ious()):
        for i, j in np.argwhere(ious >= MATCH_IOU).tolist():
            near.setdefault((int(rows[i]), int(columns[j])), []).append((frame, float(ious[i, j])))
    pairs = []
    for row, column in _correspondence(near):
        for frame, iou in near[row, column]:
            mine, other = found[row][frame], tracks[column][frame]
            assert mine is not None and other is not None, "what is not there overlaps with nothing"
            pairs.append((mine, other, iou))
    return pairs


def _correspondence(near: Mapping[tuple[int, int], Sequence[tuple[int, float]]]) -> Iterator[tuple[int, int]]:
    """Greedy one-to-one pairs: the most matching frames first, then the largest total IoU."""
    return one_to_one(sorted(near, key=lambda pair: (-len(near[pair]), -sum(iou for _, iou in near[pair]), pair)))


def _differences(pairs: list[tuple[Row, Row, float]]) -> dict[str, Any]:
    """Statistics of the matched rows, by field name."""
    names = ("mean_iou", "lowest_iou", "same_class", "mean_score_difference", "highest_score_difference",
             "mean_box_difference_px", "highest_box_difference_px")
    if not pairs:
        return dict.fromkeys(names)
    ious = 100 * np.array([iou for _, _, iou in pairs])
    same_class = 100 * np.mean([a.class_id == b.class_id for a, b, _ in pairs])
    scores = np.abs([a.score - b.score for a, b, _ in pairs])
    boxes = np.abs([np.subtract(a.box, b.box) for a, b, _ in pairs]).max(axis=1)
    values = (ious.mean(), ious.min(), same_class, scores.mean(), scores.max(), boxes.mean(), boxes.max())
    return {name: float(value) for name, value in zip(names, values, strict=True)}


def _evaluate(reference: RunFile, found: RunFile, class_names: dict[int, str]) -> Evaluation:
    """Evaluate `found` against `reference` as annotations, with results of every score."""
    video = Video(VIDEO_ID, reference.height, reference.width, len(reference.frames),
                  tuple(f"{reference.source}/{frame}" for frame in range(len(reference.frames))))
    # Evaluation sorts results by score: where masks are equal, the same order on both sides keeps identities apart.
    truth = sorted(_visible_entries(reference, class_names), key=lambda entry: -float(entry["score"]))
    tracks = tuple(Track(entry["instance_id"], VIDEO_ID, entry["category_id"], False, tuple(entry["segmentations"]))
                   for entry in truth)
    categories = tuple(Category(class_id, name) for class_id, name in sorted(class_names.items()))
    entries = _visible_entries(found, class_names)
    # No limit on the number of results: the 100 best per class, as in YouTube-VIS, may not cover a long video.
    return evaluate(Annotations(reference.path, categories, (video,), tracks), entries, shown_score=-np.inf,
                    max_results=len(entries), where=str(found.path))


def _visible_entries(run: RunFile, class_names: dict[int, str]) -> list[dict[str, Any]]:
    entries = run.entries(VIDEO_ID, range(1, max(class_names) + 1))
    areas = Overlap.measure([entry["segmentations"] for entry in entries], [], len(run.frames)).areas
    return [entries[row] for row in np.flatnonzero(areas.any(axis=0)).tolist()]


def _check_same_frames(reference: RunFile, found: RunFile) -> None:
    for name, one, other in (("frames", len(reference.frames), len(found.frames)),
                             ("pixels in height", reference.height, found.height),
                             ("pixels in width", reference.width, found.width)):
        if one != other:
            raise InputError(f"{reference.path} has {one} {name}, {found.path} has {other}; compare runs over the same "
                             "video")


def _class_names(reference: RunFile, found: RunFile) -> dict[int, str]:
    names: dict[int, str] = {}
    for run in (reference, found):
        for row in (row for rows in run.frames for row in rows):
            known = names.setdefault(row.class_id, row.label)
            if known != row.label:
                raise InputError(f"{run.path} has {row.label!r} for class {row.class_id}, which is {known!r} in "
                                 f"{reference.path}; compare runs of models with the same classes")
    return names
