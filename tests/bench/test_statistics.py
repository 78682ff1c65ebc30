"""Percentiles against a slow twin, intervals reckoned by hand, and verdicts on measurements made up."""
from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from stmask_deploy.bench import statistics
from stmask_deploy.bench.statistics import Interval, in_units_of, percentiles, speedup, t_quantile, verdict


def slow_percentile(values: list[float], q: float) -> float:
    ordered = sorted(values)
    place = q / 100 * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_percentiles_against_a_slow_twin(count: int) -> None:
    values = np.random.default_rng(count).exponential(size=count).tolist()
    found = percentiles(values)
    assert list(found) == ["p50", "p90", "p99"]
    for name, q in (("p50", 50), ("p90", 90), ("p99", 99)):
        assert found[name] == pytest.approx(slow_percentile(values, q))


def rounds(rng: np.random.Generator, level: float, drift: float, noise: float, count: int = 5) -> list[list[float]]:
    """Seconds of `count` rounds of 12 frames; each round has a drift of its own."""
    return [(level * (1 + drift * rng.standard_normal()) * (1 + noise * rng.standard_normal(12))).tolist()
            for _ in range(count)]


@pytest.mark.parametrize("freedom, told", [
    (1, 63.657), (2, 9.925), (2.5, 7.164), (4, 4.604), (7, 3.499), (30, 2.750), (1000, 2.581)])
def test_quantiles_against_a_printed_table(freedom: float, told: float) -> None:
    assert t_quantile(freedom) == pytest.approx(told, abs=5e-4)


def test_an_interval_reckoned_by_hand() -> None:
    # Three rounds, e^0.1, e^0.2 and e^0.3 times as fast: deviation 0.1, and t is 9.925 with two degrees of freedom.
    old, new = [[math.exp(0.1)], [math.exp(0.2)], [math.exp(0.3)]], [[1.0], [1.0], [1.0]]
    low, high = 0.2 - 9.925 * 0.1 / math.sqrt(3), 0.2 + 9.925 * 0.1 / math.sqrt(3)
    for paired in (True, False):  # rounds that do not differ at all add nothing
        found = speedup(old, new, paired=paired)
        assert np.log(found) == pytest.approx([0.2, low, high], abs=1e-4)
    # Both differ alike and apart: twice the variance, four degrees of freedom.
    reach = 4.604 * 0.1 * math.sqrt(2 / 3)
    assert np.log(speedup(old, old[::-1], paired=False)) == pytest.approx([0, -reach, reach], abs=1e-4)


Noise = Callable[[np.random.Generator], float]
NOISES: dict[str, Noise] = {
    "Gaussian": lambda rng: rng.standard_normal(),
    "heavy tails": lambda rng: rng.standard_t(2),
    "now and then a slow round": lambda rng: rng.exponential() if rng.random() < 0.2 else 0.1 * rng.standard_normal(),
}


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("count", [3, 5, 8])
def test_two_measurements_of_the_same_differ_once_in_a_hundred(count: int, noise: str, paired: bool) -> None:
    rng = np.random.default_rng(count)
    wrong = 0
    for _ in range(1000):
        old, new = ([[math.exp(0.05 * NOISES[noise](rng))] for _ in range(count)] for _ in range(2))
        wrong += verdict(speedup(old, new, paired=paired)) != "within noise"
    assert wrong <= 16  # of 1000; 10 are expected, and 17 or more come by chance in 1 of 40 cases


def test_a_difference_that_is_there_is_seen() -> None:
    rng = np.random.default_rng(4)
    verdicts = [verdict(speedup(rounds(rng, 1.0, 0.01, 0.1), rounds(rng, 0.8, 0.01, 0.1), paired=False))
                for _ in range(60)]
    assert verdicts.count("faster") >= 57


def test_drift_between_rounds_is_no_difference() -> None:
    """Frames of one round are alike: taken as independent samples they would show differences that are none."""
    rng = np.random.default_rng(1)
    verdicts = [verdict(speedup(rounds(rng, 1, 0.1, 0.01), rounds(rng, 1, 0.1, 0.01), paired=False))
                for _ in range(60)]
    assert verdicts.count("within noise") >= 54


def test_what_drifts_together_goes_out_of_a_paired_ratio() -> None:
    rng = np.random.default_rng(2)
    old = rounds(rng, 1, 0.0, 0.01)
    drifts = [0.7, 1.0, 1.3, 0.9, 1.1]
    old = [[value * drift for value in one] for one, drift in zip(old, drifts, strict=True)]
    new = [[value * 0.97 for value in one] for one in old]
    assert verdict(speedup(old, new, paired=True)) == "faster"
    assert verdict(speedup(old, new, paired=False)) == "within noise"


def test_frames_that_finish_in_bursts_hide_no_difference() -> None:
    """Overlapped, one frame waits for another and the next one is done at once; a round is steady all the same."""
    rng = np.random.default_rng(5)
    old = [[value * (1 + 0.02 * rng.standard_normal()) for value in [1.490, 0.041, 1.511, 0.084] * 3] for _ in range(5)]
    new = [[1.3 * value for value in one] for one in old]
    assert verdict(speedup(old, new, paired=False)) == "slower"
    assert verdict(speedup(old, old, paired=False)) == "within noise"


@pytest.mark.parametrize("change, told", [
    (Interval(1.2, 1.1, 1.3), "faster"),
    (Interval(0.8, 0.7, 0.9), "slower"),
    (Interval(1.05, 0.99, 1.1), "within noise"),
    (Interval(1.0, 1.0, 1.0), "within noise"),
])
def test_verdicts(change: Interval, told: str) -> None:
    assert verdict(change) == told


def test_one_round_has_no_bounds() -> None:
    assert speedup([[2.0, 4.0]], [[1.0, 1.0]], paired=True) == (pytest.approx(3), 0, math.inf)
    assert speedup([[2.0], [2.0]], [[1.0]], paired=False) == (pytest.approx(2), 0, math.inf)
    assert statistics.MIN_ROUNDS == 2


def test_one_frame_a_round_will_do() -> None:
    assert speedup([[2.0], [2.0], [2.0]], [[1.0], [1.0], [1.0]], paired=False) == pytest.approx((2, 2, 2))


def test_a_round_in_units_of_another() -> None:
    assert in_units_of([[2.0, 4.0], [1.0]], [[6.0], [1.0, 4.0]]) == [[2.0], [2.5]]
