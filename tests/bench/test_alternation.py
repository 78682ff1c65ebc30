"""In which order subjects take turns."""
from __future__ import annotations

from stmask_deploy.bench.alternation import back_and_forth


def test_every_second_round_is_reversed() -> None:
    assert list(back_and_forth({"a": 1, "b": 2, "c": 3}, 3)) == [["a", "b", "c"], ["c", "b", "a"], ["a", "b", "c"]]


def test_no_subjects_and_no_rounds() -> None:
    assert list(back_and_forth([], 2)) == [[], []] and list(back_and_forth("ab", 0)) == []
