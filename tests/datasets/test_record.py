from __future__ import annotations

from typing import Any

import pytest

from stmask_deploy.datasets.record import Record
from stmask_deploy.errors import InputError


def refuse(read: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read()


@pytest.mark.parametrize("value", [0, 7, 2 ** 53])
def test_whole_numbers(value: int) -> None:
    assert Record({"n": value}, "here").whole_number("n") == value


@pytest.mark.parametrize("value", [-1, 2 ** 53 + 1, 10 ** 400, 1.0, True, "1", None])
def test_no_whole_numbers(value: object) -> None:
    refuse(lambda: Record({"n": value}, "here").whole_number("n"), "here: expected 'n' to be a whole number from 0 on")


def test_a_default_stands_for_a_missing_key_only() -> None:
    assert Record({}, "here").whole_number("n", default=3) == 3
    refuse(lambda: Record({"n": None}, "here").whole_number("n", default=3), "found null")


@pytest.mark.parametrize("value", [0, -0.5, 1e308])
def test_numbers(value: float) -> None:
    assert Record({"x": value}, "here").number("x") == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 10 ** 400, False, "1", None, []])
def test_no_numbers(value: object) -> None:
    refuse(lambda: Record({"x": value}, "here").number("x"), "here: expected 'x' to be a finite number")


def test_the_place_of_a_nested_object_is_told() -> None:
    outer = Record({"rows": [{"name": "first"}, {"name": ""}, {}]}, "file.json")
    first, second, third = outer.records("rows")
    assert first.text("name") == "first"
    refuse(lambda: second.text("name"), r"file\.json: rows\[1\]: expected 'name' to be a non-empty string, found ''")
    refuse(lambda: third.text("name"), r"file\.json: rows\[2\]: 'name' is missing")
    refuse(lambda: Record([], "file.json"), r"file\.json: expected an object, found a list")
