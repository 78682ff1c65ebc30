"""Is a difference more than noise? Answered by drawing samples again from what was measured."""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

PERCENTILES = {"p50": 50, "p90": 90, "p99": 99}
MIN_ROUNDS = 3  # fewer do not show how much rounds differ
DRAWS = 2000
CONFIDENCE = 99.0  # percent; few rounds make intervals too narrow, so a wide one is taken

Floats = NDArray[np.float64]
Rounds = Sequence[Sequence[float]]  # seconds: round by round, frame by frame


class Interval(NamedTuple):
    """How many times as fast the new samples are, and between what bounds that lies."""

    ratio: float
    low: float
    high: float


SAME = Interval(1.0, 1.0, 1.0)


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p90 and p99, interpolated between neighbours; at least one value."""
    return {name: float(value) for name, value in
            zip(PERCENTILES, np.percentile(np.asarray(values), list(PERCENTILES.values())), strict=True)}


def speedup(old: Rounds, new: Rounds, *, paired: bool) -> Interval:
    """How many times as fast `new` is, by mean seconds a frame, with its bootstrap interval.

    A shared machine drifts, so the frames of a round are no independent samples. Rounds are therefore drawn again
    first, then the frames of each round drawn.

    Args:
        old, new: samples, no round empty.
        paired: both were measured in the same rounds, so that drift goes out of their ratio: a round that is drawn is
            drawn for both.
    """
    rng = np.random.default_rng(0)
    old_picks = rng.integers(len(old), size=(DRAWS, len(old)))
    new_picks = old_picks if paired else rng.integers(len(new), size=(DRAWS, len(new)))
    ratios = _drawn_means(old, old_picks, rng) / _drawn_means(new, new_picks, rng)
    tail = (100 - CONFIDENCE) / 2
    low, high = np.percentile(ratios, [tail, 100 - tail])
    return Interval(_mean(old) / _mean(new), float(low), float(high))


def _mean(rounds: Rounds) -> float:
    """Rounds count alike, however many frames they have."""
    return float(np.mean([np.mean(frames) for frames in rounds]))


def _drawn_means(rounds: Rounds, picks: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    """(draws,) means over the rounds picked in each draw; the frames of a round are drawn anew for every pick."""
    means = np.empty(picks.shape)
    for i, frames in enumerate(rounds):
        is_picked = picks == i
        values = np.asarray(frames, np.float64)
        drawn = rng.integers(len(values), size=(int(is_picked.sum()), len(values)))
        means[is_picked] = values[drawn].mean(axis=1)
    return np.asarray(means.mean(axis=1))


def verdict(change: Interval, machine: Interval = SAME) -> str:
    """`faster`, `slower` or `within noise`.

    Args:
        change: of a row.
        machine: of plain convolutions between the same two runs; a row has changed only as far as it changed more.
    """
    if change.low > max(1.0, machine.high):
        return "faster"
    if change.high < min(1.0, machine.low):
        return "slower"
    return "within noise"
