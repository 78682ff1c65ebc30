from __future__ import annotations

import numpy as np
import pytest

from stmask_deploy.wording import counted, is_unicode, on_one_line, shown


@pytest.mark.parametrize(("number", "words", "expected"), [
    (0, ("frame",), "0 frames"), (1, ("frame",), "1 frame"), (2, ("frame",), "2 frames"),
    (1, ("identity", "identities"), "1 identity"), (2, ("identity", "identities"), "2 identities"),
])
def test_counted(number: int, words: tuple[str, ...], expected: str) -> None:
    assert counted(number, *words) == expected


@pytest.mark.parametrize(("text", "expected"), [
    ("", ""), ("clip 1.mp4", "clip 1.mp4"), ("a\nb\r\tc", r"a\nb\r\tc"), ("\x1b[2J\x7f\x85", r"\x1b[2J\x7f\x85"),
    ("a\u2028b\u2029", r"a\u2028b\u2029"), ("Jäger 視頻 👩\u200d🚀 \udcff", "Jäger 視頻 👩\u200d🚀 \udcff"),
    (r"C:\new", r"C:\new"), ("cat\u202egod\u2069", r"cat\u202egod\u2069"),
    ("\u05d7\u05ea\u05d5\u05dc", "\u05d7\u05ea\u05d5\u05dc"),  # Hebrew is left alone
])
def test_on_one_line(text: str, expected: str) -> None:
    assert on_one_line(text) == expected


@pytest.mark.parametrize(("value", "expected"), [
    ("a\nb", r"'a\nb'"), (np.arange(3), "array([0, 1, 2])"), pytest.param(10 ** 5000, "a very long int", id="long"),
    (np.zeros((2, 2)), "array([[0., 0.], [0., 0.]])"), ("x" * 78, "'" + "x" * 78 + "'"),
    ("x" * 79, "'" + "x" * 75 + " ..."), ({"a": [1, (2.5, None)]}, "{'a': [1, (2.5, None)]}"),
])
def test_shown(value: object, expected: str) -> None:
    assert shown(value) == expected


def test_parts_that_are_shared_are_not_shown_for_ever() -> None:
    value = [0]
    for _ in range(200):
        value = [value, value]  # type: ignore[list-item]
    assert shown(value) == "[[[[...], [...]], [[...], [...]]], [[[...], [...]], [[...], [...]]]]"


def test_is_unicode() -> None:
    assert is_unicode("Jäger 視頻 👩\u200d🚀") and not is_unicode("a\udcff") and not is_unicode("\ud83d")
