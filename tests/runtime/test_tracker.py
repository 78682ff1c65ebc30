from __future__ import annotations

import numpy as np
from tracking import instances

from stmask_deploy.runtime.matching import NEW_OBJECT
from stmask_deploy.runtime.tracker import DROPPED, keep_best, merge, no_tracks, origins, retire, sized
from stmask_deploy.types import TrackedInstances


def tracked(n: int, ages: list[int], scores: list[float] | None = None, side: int = 4) -> TrackedInstances:
    return TrackedInstances(instances([(0, 0, 1, side)] * n, [0] * n, scores), np.arange(n) + 10,
                            np.array(ages, np.int64))


def test_keep_best() -> None:
    assignment = np.array([2, NEW_OBJECT, 2, 0, 0, NEW_OBJECT, 2])
    scores = np.array([0.5, 0.4, 0.9, 0.3, 0.3, 0.2, 0.9], np.float32)
    # object 2 goes to the first of the two best, object 0 to the first of two equal ones; new ones never compete
    assert keep_best(assignment, scores).tolist() == [DROPPED, NEW_OBJECT, 2, 0, DROPPED, NEW_OBJECT, DROPPED]
    assert keep_best(assignment[:0], scores[:0]).shape == (0,)


def test_merge() -> None:
    tracks = tracked(3, [1, 2, 3])
    found = instances([(4, 4, 6, 6)] * 4, [1, 2, 3, 4], [0.5, 0.6, 0.7, 0.8], [6, 7, 8, 9])
    rows = origins(3, np.array([NEW_OBJECT, 1, DROPPED, NEW_OBJECT]))
    merged = merge(tracks, found, rows, next_id=40)
    assert rows.tolist() == [0, 4, 2, 3, 6]
    assert merged.ids.tolist() == [10, 11, 12, 40, 41]
    assert merged.ages.tolist() == [1, 0, 3, 0, 0]
    assert merged.instances.class_ids.tolist() == [1, 7, 1, 6, 9]
    assert merged.instances.masks[:, 5, 5].tolist() == np.float32([0, 0.9, 0, 0.9, 0.9]).tolist()
    assert merged.instances.embeddings.argmax(axis=1).tolist() == [0, 2, 0, 1, 4]
    assert tracks.ages.tolist() == [1, 2, 3] and tracks.instances.class_ids.tolist() == [1, 1, 1]  # as it was


def test_merge_with_nothing() -> None:
    tracks, found = tracked(2, [1, 2]), instances([(0, 0, 1, 1)], [0])
    none = np.zeros(0, np.int64)
    assert merge(tracks, found[:0], origins(2, none), 12).ids.tolist() == [10, 11]
    assert sized(no_tracks(), found).instances.masks.shape == (0, 8, 8)
    first = merge(sized(no_tracks(), found), found, origins(0, np.array([NEW_OBJECT])), 0)
    assert first.ids.tolist() == [0]
    assert merge(sized(no_tracks(), found), found[:0], origins(0, none), 0).instances.masks.shape == (0, 8, 8)


def test_retire() -> None:
    rows = tracked(3, [4, 5, 6])
    assert retire(rows, 5).tolist() == [True, True, False]
    assert retire(rows, None).tolist() == [True] * 3
