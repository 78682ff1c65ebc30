"""The order in which subjects take turns."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def back_and_forth(subjects: Iterable[T], rounds: int) -> Iterator[list[T]]:
    """The subjects of each round, in reverse order in every second one: a machine's drift affects all of them alike."""
    forth = list(subjects)
    for number in range(rounds):
        yield forth if number % 2 == 0 else forth[::-1]
