"""Percentiles and bootstrap against slow twins, and verdicts on measurements made up to be told apart or not."""
from __future__ import annotations

import numpy as np
import pytest

from stmask_deploy.bench import statistics
from stmask_deploy.bench.statistics import SAME, Interval, percentiles, speedup, verdict


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


def slow_interval(old: list[list[float]], new: list[list[float]], paired: bool) -> tuple[float, float]:
    """Loops over draws, rounds and frames, with random numbers of its own."""
    rng = np.random.default_rng(99)
    ratios = []
    for _ in range(1000):
        old_rounds = [rng.integers(len(old)) for _ in old]
        new_rounds = old_rounds if paired else [rng.integers(len(new)) for _ in new]
        means = []
        for rounds, picks in ((old, old_rounds), (new, new_rounds)):
            drawn = [[rounds[pick][rng.integers(len(rounds[pick]))] for _ in rounds[pick]] for pick in picks]
            means.append(np.mean([np.mean(frames) for frames in drawn]))
        ratios.append(means[0] / means[1])
    return slow_percentile(ratios, 0.5), slow_percentile(ratios, 99.5)


def rounds(rng: np.random.Generator, level: float, drift: float, noise: float, count: int = 5) -> list[list[float]]:
    """Seconds of `count` rounds of 12 frames; each round has a drift of its own."""
    return [(level * (1 + drift * rng.standard_normal()) * (1 + noise * rng.standard_normal(12))).tolist()
            for _ in range(count)]


@pytest.mark.parametrize("paired", [False, True])
def test_the_interval_against_a_slow_twin(paired: bool) -> None:
    rng = np.random.default_rng(3)
    old, new = rounds(rng, 1.0, 0.05, 0.1), rounds(rng, 0.8, 0.05, 0.1)
    found, (low, high) = speedup(old, new, paired=paired), slow_interval(old, new, paired)
    width = high - low
    assert found.low == pytest.approx(low, abs=0.15 * width)
    assert found.high == pytest.approx(high, abs=0.15 * width)
    assert found.ratio == pytest.approx(np.mean([np.mean(one) for one in old]) / np.mean([np.mean(one) for one in new]))


def test_the_same_samples_give_the_same_interval() -> None:
    rng = np.random.default_rng(0)
    old, new = rounds(rng, 1, 0.1, 0.1), rounds(rng, 1, 0.1, 0.1)
    assert speedup(old, new, paired=False) == speedup(old, new, paired=False)


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


def test_noise_within_rounds_counts_too() -> None:
    uneven = [[1.0, 2.0, 1.0, 2.0]] * 5
    found = speedup(uneven, uneven, paired=True)
    assert found.ratio == 1 and found.low < 0.9 and found.high > 1.1


@pytest.mark.parametrize("change, machine, told", [
    (Interval(1.2, 1.1, 1.3), SAME, "faster"),
    (Interval(0.8, 0.7, 0.9), SAME, "slower"),
    (Interval(1.05, 0.99, 1.1), SAME, "within noise"),
    (Interval(1.2, 1.1, 1.3), Interval(1.15, 1.05, 1.2), "within noise"),
    (Interval(1.4, 1.3, 1.5), Interval(1.15, 1.05, 1.2), "faster"),
    (Interval(1.2, 1.1, 1.3), Interval(0.8, 0.7, 0.9), "faster"),
    (Interval(0.8, 0.7, 0.9), Interval(0.8, 0.75, 0.95), "within noise"),
])
def test_verdicts(change: Interval, machine: Interval, told: str) -> None:
    assert verdict(change, machine) == told


def test_one_frame_a_round_will_do() -> None:
    found = speedup([[2.0], [2.0], [2.0]], [[1.0], [1.0], [1.0]], paired=False)
    assert found == Interval(2.0, 2.0, 2.0)
    assert statistics.MIN_ROUNDS == 3
