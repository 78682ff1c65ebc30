"""Results of comparing graphs with PyTorch: one `Check` per output, collected in a `Verification`.

A `Deviation` is what was found; a `Check` judges it.
"""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]


def spread(values: NDArray[Any]) -> float:
    """The range of some values, by which errors are judged; not 0 if they are all equal."""
    return max(float(np.ptp(values)), 1e-6)


@dataclass(frozen=True)
class Deviation:
    """How far one output of one graph is from PyTorch's."""

    output: str  # graph/output
    shape: tuple[int, ...]
    error: float  # largest difference (of `levels/*` the largest mean of a level), as a share of the reference's range
    problem: str = ""  # any problem other than the error: a wrong shape or selection of candidates


@dataclass(frozen=True)
class Check:
    """The judgement of a deviation on one backend."""

    backend: str
    output: str  # this, shape, error and problem: see `Deviation`
    shape: tuple[int, ...]
    error: float
    tolerance: float
    problem: str = ""

    @property
    def passed(self) -> bool:
        return not self.problem and self.error <= self.tolerance  # False for NaN

    def line(self) -> str:
        shape = "x".join(map(str, self.shape)) or "scalar"
        verdict = "ok" if self.passed else f"MISS {self.problem}".rstrip()
        return (f"{self.backend:12s} {self.output:22s} {shape:14s} error {self.error:.1e} of range, "
                f"tolerance {self.tolerance:.0e}  {verdict}")


@dataclass(frozen=True)
class Verification:
    """All checks of a bundle."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return bool(self.checks) and all(check.passed for check in self.checks)

    def lines(self) -> list[str]:
        return [check.line() for check in self.checks]

    def summary(self) -> str:
        """All failed checks, on one line."""
        missed = [f"{check.backend} {check.output} ({check.problem or f'error {check.error:.1e}'})"
                  for check in self.checks if not check.passed]
        if not missed:
            return "all outputs match" if self.checks else "nothing was compared"
        return f"{len(missed)} of {len(self.checks)} outputs missed: {', '.join(missed)}"

    def reached(self) -> dict[str, float]:
        """Backend -> largest error."""
        backends = dict.fromkeys(check.backend for check in self.checks)
        return {name: float(f"{max(check.error for check in self.checks if check.backend == name):.2e}")
                for name in backends}

    def to_dict(self) -> dict[str, Any]:
        return {"passed": self.passed, "checks": [{**vars(check), "passed": check.passed} for check in self.checks]}
