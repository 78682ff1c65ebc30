from __future__ import annotations

import pytest

from stmask_deploy.wording import counted


@pytest.mark.parametrize(("number", "words", "expected"), [
    (0, ("frame",), "0 frames"), (1, ("frame",), "1 frame"), (2, ("frame",), "2 frames"),
    (1, ("identity", "identities"), "1 identity"), (2, ("identity", "identities"), "2 identities"),
])
def test_counted(number: int, words: tuple[str, ...], expected: str) -> None:
    assert counted(number, *words) == expected
