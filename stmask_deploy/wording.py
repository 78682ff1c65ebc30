"""Words of messages."""
from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """"1 frame", "2 frames"; `many` is for irregular plurals."""
    return f"{number} {one if number == 1 else many or one + 's'}"
