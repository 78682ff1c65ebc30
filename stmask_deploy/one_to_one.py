"""Greedy one-to-one matching."""
from __future__ import annotations

from collections.abc import Iterable, Iterator


def one_to_one(pairs: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yield the pairs, best first, neither of whose sides was in one that was yielded before."""
    used_first: set[int] = set()
    used_second: set[int] = set()
    for first, second in pairs:
        if first not in used_first and second not in used_second:
            used_first.add(first)
            used_second.add(second)
            yield first, second
