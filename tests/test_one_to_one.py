from __future__ import annotations

import pytest

from stmask_deploy.one_to_one import one_to_one


@pytest.mark.parametrize(("pairs", "kept"), [
    ([], []),
    ([(1, 1), (2, 2)], [(1, 1), (2, 2)]),  # the sides are numbered apart
    ([(1, 2), (2, 1)], [(1, 2), (2, 1)]),
    ([(1, 5), (1, 6), (2, 5), (2, 6)], [(1, 5), (2, 6)]),
    ([(1, 5), (2, 5), (2, 6), (1, 6)], [(1, 5), (2, 6)]),
    ([(1, 5), (1, 5)], [(1, 5)]),
    ([(3, 6), (3, 5), (2, 6), (1, 5)], [(3, 6), (1, 5)]),  # 5 is free: the pair that lost it took nothing
])
def test_the_first_takes_both_sides(pairs: list[tuple[int, int]], kept: list[tuple[int, int]]) -> None:
    assert list(one_to_one(iter(pairs))) == kept
