"""Is a difference more than noise? Answered by how much rounds differ among themselves."""
from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PERCENTILES = {"p50": 50, "p90": 90, "p99": 99}
MIN_ROUNDS = 2  # one does not show how much rounds differ
CONFIDENCE = 0.99  # of an interval
_STEPS = 10_000  # of the integral in `t_quantile`

Floats = NDArray[np.float64]
Rounds = Sequence[Sequence[float]]  # seconds: round by round, frame by frame


class Interval(NamedTuple):
    """How many times as fast the new samples are, and between what bounds that lies."""

    ratio: float
    low: float
    high: float


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p90 and p99, interpolated between neighbours; at least one value."""
    return {name: float(value) for name, value in
            zip(PERCENTILES, np.percentile(np.asarray(values), list(PERCENTILES.values())), strict=True)}


def speedup(old: Rounds, new: Rounds, *, paired: bool) -> Interval:
    """How many times as fast `new` is, by the geometric mean of its rounds, with Student's interval.

    A round is one sample, its mean: a shared machine drifts, so the frames of a round are alike, and frames that
    overlap finish in bursts. Logarithms are taken since what disturbs a round multiplies its time.

    Args:
        old, new: samples, no round empty, all of them more than 0 in sum.
        paired: both were measured in the same rounds, so that drift goes out of their ratio.

    Returns:
        The bounds are 0 and infinity where there is one round only.
    """
    before, after = _log_means(old), _log_means(new)
    parts = [before - after] if paired else [before, -after]
    center, reach = sum(float(part.mean()) for part in parts), _reach(parts)
    return Interval(math.exp(center), float(np.exp(center - reach)), float(np.exp(center + reach)))


def in_units_of(unit: Rounds, rounds: Rounds) -> list[list[float]]:
    """The mean of every round, in means of `unit` in the same round."""
    return [[float(np.mean(frames) / np.mean(others))] for frames, others in zip(rounds, unit, strict=True)]


def _log_means(rounds: Rounds) -> Floats:
    """(rounds,) logarithms of the mean seconds of each."""
    return np.log([np.mean(frames) for frames in rounds])


def _reach(parts: Sequence[Floats]) -> float:
    """Half the width of the interval of a sum of means, each of independent samples."""
    if min(map(len, parts)) < MIN_ROUNDS:
        return math.inf
    errors = [float(part.var(ddof=1)) / len(part) for part in parts]
    if sum(errors) == 0:
        return 0.0
    # Of Welch and Satterthwaite; with one part it is its length less one.
    freedom = sum(errors) ** 2 / sum(error ** 2 / (len(part) - 1) for error, part in zip(errors, parts, strict=True))
    return t_quantile(freedom) * math.sqrt(sum(errors))


def t_quantile(freedom: float) -> float:
    """What Student's t stays within, on either side of 0, with a probability of `CONFIDENCE`.

    Args:
        freedom: degrees of freedom, 1 to some thousand; not always a whole number.
    """
    # With t = sqrt(freedom) * tan(angle) the density of the angle is that power of its cosine, up to a factor.
    angles = np.linspace(0, np.pi / 2, _STEPS + 1)
    density = np.cos(angles) ** (freedom - 1)
    shares = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return math.sqrt(freedom) * math.tan(float(np.interp(CONFIDENCE, shares / shares[-1], angles)))


def verdict(change: Interval) -> str:
    """`faster`, `slower` or `within noise`."""
    if change.low > 1:
        return "faster"
    return "slower" if change.high < 1 else "within noise"
