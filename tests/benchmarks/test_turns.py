from __future__ import annotations

import pytest
import turns as module
from turns import turns


def test_runs_take_turns_back_and_forth_and_the_first_of_each_is_a_warm_up() -> None:
    called: list[str] = []
    samples = turns({name: lambda name=name: called.append(name) for name in "ab"}, rounds=2)
    assert called == [*"ab", *"aabb", *"bbaa"]
    assert {name: len(values) for name, values in samples.items()} == {"a": 2, "b": 2}
    assert all(value >= 0 for values in samples.values() for value in values)


def test_milliseconds_of_the_second_run_of_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0

    def pass_time(name: str) -> None:
        nonlocal now
        now += left[name].pop(0)

    left = {"a": [50.0, 9.0, 0.25, 8.0, 0.5], "b": [60.0, 7.0, 2.0, 6.0, 3.0]}
    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    samples = turns({name: lambda name=name: pass_time(name) for name in "ab"}, rounds=2)
    assert samples == {"a": [250.0, 500.0], "b": [2000.0, 3000.0]}
