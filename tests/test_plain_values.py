"""Dataclasses from plain values: what is converted, and what is refused with which words."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import pytest

from stmask_deploy.errors import InputError
from stmask_deploy.plain_values import from_plain, is_number, known_values


class Color(Enum):
    RED = "red"


@dataclass(frozen=True)
class Wheel:
    size: float = 1.0
    spokes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.size > 9:
            raise InputError("too large")


@dataclass(frozen=True)
class Cart:
    name: str
    color: Color = Color.RED
    wheel: Wheel = Wheel()
    spare: Wheel | None = None
    sides: tuple[tuple[int, float], ...] = ()
    load: float | None = None
    prices: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise InputError("a cart needs a name")


@pytest.mark.parametrize(("values", "cart"), [
    ({"name": "a"}, Cart("a")),
    ({"name": "a", "color": "red", "load": 3}, Cart("a", load=3)),
    ({"name": "a", "color": Color.RED, "wheel": Wheel(2.0)}, Cart("a", wheel=Wheel(2.0))),
    ({"name": "a", "wheel": {"size": 2, "spokes": [1, 2]}, "spare": {}}, Cart("a", wheel=Wheel(2, (1, 2)),
                                                                              spare=Wheel())),
    ({"name": "a", "spare": None, "sides": [[1, 2.5], (3, 4)]}, Cart("a", sides=((1, 2.5), (3, 4)))),
    ({"name": "a", "prices": {"b": 1.5}}, Cart("a", prices={"b": 1.5})),
])
def test_what_is_converted(values: dict[str, Any], cart: Cart) -> None:
    assert from_plain(Cart, values, "cart") == cart


def deep() -> list[Any]:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    return value


@pytest.mark.parametrize(("values", "message"), [
    (3, "cart: expected a mapping, found int"),
    ({"wheels": 4, 7: 1}, "cart: unknown keys 7, wheels; known: color, load, name, prices, sides, spare, wheel"),
    ({}, "cart: Cart.__init__.. missing 1 required positional argument: 'name'"),
    ({"name": 1}, "cart: name has the wrong form: 1"),
    ({"name": "a", "color": "blue"}, "cart: 'blue' is not a valid Color"),
    ({"name": "a", "color": ["red"]}, "cart: .'red'. is not a valid Color"),
    ({"name": "a", "wheel": [1]}, "cart: wheel: expected a mapping, found list"),
    ({"name": "a", "wheel": None}, "cart: wheel: expected a mapping, found NoneType"),
    ({"name": "a", "wheel": {"width": 1}}, "cart: wheel: unknown keys width; known: size, spokes"),
    ({"name": "a", "wheel": {"size": "x"}}, "cart: wheel: size has the wrong form: 'x'"),
    ({"name": "a", "wheel": {"size": float("nan")}}, "cart: wheel: size has the wrong form: nan"),
    ({"name": "a", "wheel": {"spokes": 3}}, "cart: wheel: spokes has the wrong form: 3"),
    ({"name": "a", "spare": {"size": 10}}, "cart: spare: too large"),
    ({"name": "a", "sides": [[1, 2, 3]]}, "cart: sides has the wrong form: .*1, 2, 3"),
    ({"name": "a", "sides": [[1.5, 2]]}, "cart: sides has the wrong form"),
    ({"name": "a", "load": True}, "cart: load has the wrong form: True"),
    ({"name": "a", "prices": {"b": "x"}}, "cart: prices has the wrong form"),
    ({"name": deep()}, "cart: "),
    ({"name": ""}, "a cart needs a name"),
])
def test_what_is_refused(values: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^{message}"):
        from_plain(Cart, values, "cart")


def test_a_value_too_long_to_show_is_cut() -> None:
    with pytest.raises(InputError) as caught:
        from_plain(Cart, {"name": list(range(1000))}, "cart")
    assert len(str(caught.value)) < 120


def test_known_values_are_unchecked() -> None:
    values = {"size": "large"}
    known = known_values(Wheel, values, "wheel")
    assert known == values and known is not values


@pytest.mark.parametrize(("value", "of_any_kind", "whole"), [
    (3, True, True), (-(10**300), True, True), (2.0, True, False), (10**400, False, False), (True, False, False),
    (float("inf"), False, False), (float("nan"), False, False), ("1", False, False), (None, False, False)])
def test_numbers(value: object, of_any_kind: bool, whole: bool) -> None:
    assert (is_number(value), is_number(value, is_whole=True)) == (of_any_kind, whole)


def test_many_and_long_unknown_keys_are_told_in_short() -> None:
    @dataclass
    class Small:
        number: int

    with pytest.raises(InputError) as caught:
        from_plain(Small, {"number": 1, **{f"{i}\n" + "x" * 10 ** 6: 1 for i in range(7)}}, "here")
    assert str(caught.value).count("x, ") == 4 and " ...; known: number" in str(caught.value)
    assert len(str(caught.value)) < 600 and "\n" not in str(caught.value)
