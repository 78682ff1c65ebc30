"""Statistics that decide whether a difference exceeds noise, based on how much rounds vary."""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PERCENTILES = {"p50": 50, "p90": 90, "p99": 99}
MIN_ROUNDS = 2  # a single round shows no variation
CONFIDENCE = 0.99  # of intervals
_STEPS = 10_000  # of the numerical integration in `t_quantile`

Floats = NDArray[np.float64]
Rounds = Sequence[Sequence[float]]  # seconds, by round and by frame


class Interval(NamedTuple):
    """Speed-up of the new samples over the old, with its confidence bounds."""

    ratio: float
    low: float
    high: float


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p90 and p99, linearly interpolated; needs at least one value."""
    return {name: float(value) for name, value in
            zip(PERCENTILES, np.percentile(np.asarray(values), list(PERCENTILES.values())), strict=True)}


def speedup(old: Rounds, new: Rounds, *, paired: bool) -> Interval:
    """Speed-up of `new` over `old` by the geometric mean of the rounds, with Student's t confidence interval.

    Each round is one sample, its mean, because a shared machine drifts (so frames within a round are correlated) and
    overlapped frames finish in bursts. Logarithms are used because disturbances multiply a round's time.

    Args:
        old, new: samples; no round may be empty or sum to 0.
        paired: both were measured in the same rounds, so that drift cancels in their ratio.

    Returns:
        The ratio and its bounds, which are 0 and infinity if either has only one round.
    """
    before, after = _log_means(old), _log_means(new)
    parts = [before - after] if paired else [before, -after]
    center, reach = sum(float(part.mean()) for part in parts), _reach(parts)
    return Interval(math.exp(center), float(np.exp(center - reach)), float(np.exp(center + reach)))


def in_units_of(unit: Rounds, rounds: Rounds) -> list[list[float]]:
    """Mean of every round, divided by the mean of `unit` in the same round."""
    return [[float(np.mean(frames) / np.mean(others))] for frames, others in zip(rounds, unit, strict=True)]


def _log_means(rounds: Rounds) -> Floats:
    """(rounds,) logarithms of the mean seconds of each round."""
    return np.log([np.mean(frames) for frames in rounds])


def _reach(parts: Sequence[Floats]) -> float:
    """Half-width of the confidence interval of a sum of independent sample means."""
    if min(map(len, parts)) < MIN_ROUNDS:
        return math.inf
    errors = [float(part.var(ddof=1)) / len(part) for part in parts]
    if sum(errors) == 0:
        return 0.0
    # Welch-Satterthwaite; for a single part this is its length minus one.
    freedom = sum(errors) ** 2 / sum(error ** 2 / (len(part) - 1) for error, part in zip(errors, parts, strict=True))
    return t_quantile(freedom) * math.sqrt(sum(errors))


def t_quantile(freedom: float) -> float:
    """Two-sided quantile of Student's t: |t| stays below it with probability `CONFIDENCE`.

    Args:
        freedom: degrees of freedom, 1 to a few thousand; need not be an integer.
    """
    # Substituting t = sqrt(freedom) * tan(angle), the density of the angle is proportional to this power of its cosine.
    angles = np.linspace(0, np.pi / 2, _STEPS + 1)
    density = np.cos(angles) ** (freedom - 1)
    shares = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return math.sqrt(freedom) * math.tan(float(np.interp(CONFIDENCE, shares / shares[-1], angles)))


def verdict(change: Interval) -> str:
    """`faster`, `slower` or `within noise`."""
    if change.low > 1:
        return "faster"
    return "slower" if change.high < 1 else "within noise"
