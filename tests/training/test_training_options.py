"""`TrainingOptions`: its ranges, its schedule, and its way to JSON and back."""
from __future__ import annotations

import json
from typing import Any

import pytest

from stmask_deploy.errors import InputError
from stmask_deploy.training.options import LossWeights, TrainingOptions


def test_json_and_back() -> None:
    options = TrainingOptions(iterations=7, steps=(0.2, 0.9), decay="cosine", weights=LossWeights(masks=2.5),
                              freeze_norms=True)
    assert TrainingOptions.from_dict(json.loads(json.dumps(options.to_dict()))) == options
    assert TrainingOptions.from_dict({}) == TrainingOptions()


@pytest.mark.parametrize(("values", "message"), [
    ({"iteration": 5}, "unknown keys iteration; known: "),
    ({"weights": {"mask": 1}}, "weights: unknown keys mask; known: .*masks"),
    ({"weights": [1, 2]}, "weights: expected a mapping, found list"),
    ({"weights": {"masks": -1}}, r"weights.masks must be a number in 0\.\.1e6, got -1"),
    ({"weights": {"masks": 10**30}}, "weights.masks"),
    ({"weights": {"masks": float("nan")}}, "weights.masks"),
    ({"iterations": 0}, r"iterations must be a whole number in 1\.\.1000000000, got 0"),
    ({"iterations": 10.0}, "iterations must be a whole number .*, got 10.0"),
    ({"pairs_per_batch": 2.5}, "pairs_per_batch must be a whole number"),
    ({"seed": True}, "seed must be a whole number"),
    ({"seed": -1}, "seed"),
    ({"learning_rate": "fast"}, "learning_rate must be a number in .*, got 'fast'"),
    ({"learning_rate": float("inf")}, "learning_rate"),
    ({"ema_decay": 1.5}, "ema_decay"),
    ({"max_gap": 0}, "max_gap"),
    ({"max_shift_gap": 0}, "max_shift_gap must be a whole number in 1"),
    ({"max_shift_gap": 1.5}, "max_shift_gap must be a whole number"),
    ({"copy_paste": 1.5}, r"copy_paste must be a number in 0\.\.1, got 1.5"),
    ({"copy_paste": True}, "copy_paste must be a number"),
    ({"optimizer": "adam"}, "optimizer 'adam' is not known; known: adamw, sgd"),
    ({"decay": ["cosine"]}, "decay .* is not known"),
    ({"precision": "f16"}, "precision 'f16' is not known; known: f32, bf16"),
    ({"freeze_norms": "yes"}, "freeze_norms must be true, false or null, got 'yes'"),
    ({"positive_iou": 0.3}, r"negative_iou \(0.4\) must not exceed positive_iou \(0.3\)"),
    ({"steps": [0.8, 0.4]}, "steps must be ascending fractions"),
    ({"steps": [0.0]}, "steps must be ascending fractions"),
    ({"steps": "early"}, "steps must be a list of numbers, got 'early'"),
    ({"steps": 0.5}, "steps must be a list of numbers"),
])
def test_bad_values(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainingOptions.from_dict(values)


def test_steps_by_hand() -> None:
    options = TrainingOptions(iterations=1000, warmup=0.01, decay="steps", steps=(0.41, 0.83), step_factor=0.1)
    expected = {0: 0.1, 4: 0.5, 9: 1.0, 10: 1.0, 409: 1.0, 410: 0.1, 829: 0.1, 830: 0.01, 999: 0.01}
    assert {iteration: options.rate(iteration) for iteration in expected} == pytest.approx(expected)


def test_cosine_by_hand() -> None:
    options = TrainingOptions(iterations=100, warmup=0.2, decay="cosine")
    expected = {0: 1 / 20, 19: 1.0, 20: 1.0, 60: 0.5, 40: 0.5 + 0.5**1.5, 100: 0.0}
    assert {iteration: options.rate(iteration) for iteration in expected} == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("decay", ["steps", "cosine"])
@pytest.mark.parametrize("iterations", [1, 2, 50])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 1.0])
def test_rates_are_between_nothing_and_all_and_fall_after_the_rise(decay: str, iterations: int, warmup: float) -> None:
    options = TrainingOptions(iterations=iterations, warmup=warmup, decay=decay)
    rates = [options.rate(iteration) for iteration in range(iterations)]
    assert 0 < rates[0] and max(rates) == 1
    top = rates.index(1)
    assert rates[:top + 1] == sorted(rates[:top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)
