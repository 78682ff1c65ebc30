from __future__ import annotations

import math

import numpy as np
import pytest
from tracking import instances, random_instances

from stmask_deploy.runtime.matching import (
    NEW_OBJECT,
    UNIT,
    best_objects,
    cosine,
    mask_cover,
    mask_iou,
    paper_scores,
    released_scores,
    whole_units,
)


@pytest.mark.parametrize("a, b, expected", [
    ([1, 0], [1, 0], 1),
    ([1, 0], [0, 2], 0),
    ([3, 0], [-1, 0], -1),  # lengths do not count
    ([1, 1], [1, 0], math.sqrt(0.5)),
    ([2, 0], [3, 3], math.sqrt(0.5)),
    ([0, 0], [1, 0], 0),  # no direction
])
def test_cosine(a: list[float], b: list[float], expected: float) -> None:
    assert cosine(np.array([a], np.float32), np.array([b], np.float32))[0, 0] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("width", [1, 5, 128, 300])
def test_cosines_are_exact_whatever_the_order_of_sums(width: int) -> None:
    """So they are the same on every machine, and rows that are the same in two classes tie."""
    rng = np.random.default_rng(width)
    a, b = ((rng.standard_normal((n, width)) * 10.0 ** rng.integers(-30, 18, (n, 1))).astype(np.float32)
            for n in (7, 37))
    b[[5, 20, 36]] = b[11]
    found = cosine(a, b)
    assert (found[:, [5, 20, 36]] == found[:, [11]]).all()
    for i, first in enumerate(a.tolist()):
        for j, second in enumerate(b.tolist()):
            length = math.sqrt(math.fsum(x * x for x in first) * math.fsum(y * y for y in second))
            assert found[i, j] == pytest.approx(math.fsum(map(math.prod, zip(first, second, strict=True))) / length,
                                                abs=1e-7)
    for values in (whole_units(a), whole_units(b)):
        assert np.array_equal(values, np.rint(values))
        assert np.abs(values @ values.T).max() < 2 ** 53
        np.testing.assert_allclose(np.sqrt((values ** 2).sum(axis=1)), UNIT, rtol=1e-6)
    same = np.ones((2, width), np.float32)  # all parts are rounded in the same direction
    assert np.abs(cosine(same, -same)).max() <= 1 and cosine(same, same) == pytest.approx(1, abs=1e-7)
    order = rng.permutation(width)
    assert np.array_equal(cosine(a[:, order], b[:, order]), found)


def test_mask_iou_agrees_with_sets_of_cells() -> None:
    rng = np.random.default_rng(0)
    a, b = random_instances(rng, 12).masks, random_instances(rng, 9).masks
    for i, row in enumerate(mask_iou(a, b)):
        for j, value in enumerate(row):
            first, second = ({tuple(cell) for cell in np.argwhere(mask > 0.5)} for mask in (a[i], b[j]))
            assert value == pytest.approx(len(first & second) / len(first | second) if first | second else 0)


@pytest.mark.parametrize(("n", "m"), [(11, 200), (3, 1000), (0, 4), (4, 0), (700, 1)])
def test_mask_iou_of_many_pairs(n: int, m: int) -> None:
    """More than are counted in one go, in numbers that no step divides; none; and more cells than a word has bits."""
    rng = np.random.default_rng(2)
    a, b = ((rng.random((count, 9, 11)) > 0.6).astype(np.float32) for count in (n, m))
    inter = a.reshape(n, 99) @ b.reshape(m, 99).T
    union = a.sum((1, 2))[:, None] + b.sum((1, 2)) - inter
    np.testing.assert_allclose(mask_iou(a, b), inter / union, rtol=1e-6)


def test_mask_iou_of_large_masks() -> None:
    """More cells in common than a small integer holds."""
    masks = np.ones((2, 300, 400), np.float32)
    masks[1, 60:] = 0
    np.testing.assert_allclose(mask_iou(masks[:1], masks), [[1, 0.2]])
    np.testing.assert_allclose(mask_cover(masks), [0, 1])


def test_mask_iou_cuts_above_one_half() -> None:
    at, above = np.full((1, 2, 2), 0.5, np.float32), np.full((1, 2, 2), 0.51, np.float32)
    assert mask_iou(above, above)[0, 0] == 1
    assert mask_iou(at, above)[0, 0] == 0
    assert mask_iou(at, at)[0, 0] == 0  # two empty masks


def test_mask_cover_agrees_with_sets_of_cells() -> None:
    """Masks wider than a machine word, so that several words are counted."""
    rng = np.random.default_rng(1)
    for n in (0, 1, 2, 9):
        masks = (rng.random((n, 9, 11)) * (rng.random((n, 1, 1)) > 0.2)).astype(np.float32)  # some are empty
        cells = [{tuple(cell) for cell in np.argwhere(mask > 0.5).tolist()} for mask in masks]
        expected = [max((len(mine & other) / len(mine) for other in cells[:row]), default=0.0) if mine else 0.0
                    for row, mine in enumerate(cells)]
        np.testing.assert_allclose(mask_cover(masks), expected, rtol=1e-6)


def test_scores_of_a_worked_pair() -> None:
    # boxes: 4 of 12 cells in common; masks likewise; embeddings at right angles
    a, b = instances([(0, 0, 2, 4)], [0]), instances([(0, 2, 2, 6)], [1])
    assert released_scores(a, b)[0, 0] == pytest.approx(0.5 + 1 / 3 + 2 / 3)
    assert paper_scores(a, b, 1.0, 1.0)[0, 0] == pytest.approx(1 / 3)
    assert paper_scores(a, a, 0.5, 3.0)[0, 0] == pytest.approx(3.5)
    assert released_scores(a, a)[0, 0] == pytest.approx(4)


@pytest.mark.parametrize("n, m", [(0, 0), (0, 3), (3, 0)])
def test_no_rows(n: int, m: int) -> None:
    rng = np.random.default_rng(0)
    a, b = random_instances(rng, n), random_instances(rng, m)
    assert released_scores(a, b).shape == paper_scores(a, b, 1.0, 1.0).shape == (n, m)


def test_best_objects() -> None:
    scores = np.array([[1.4, 0.2, 1.5], [1.4, 1.4, 1.4], [2, 2, 1], [0, 0, 0]], np.float32)
    # 1.4 does not exceed a new object's 1.4; of equal objects the first wins
    assert best_objects(scores, float(np.float32(1.4))).tolist() == [2, NEW_OBJECT, 0, NEW_OBJECT]
    assert best_objects(scores[:0], 1.4).shape == (0,)
    assert best_objects(scores[:, :0], 1.4).tolist() == [NEW_OBJECT] * len(scores)
