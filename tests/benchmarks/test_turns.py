from __future__ import annotations

from turns import turns


def test_runs_take_turns_and_the_first_of_each_is_a_warm_up() -> None:
    called: list[str] = []
    samples = turns({name: lambda name=name: called.append(name) for name in "ab"}, rounds=2)
    assert called == [*"aabb"] * 2
    assert {name: len(values) for name, values in samples.items()} == {"a": 2, "b": 2}
    assert all(value >= 0 for values in samples.values() for value in values)
