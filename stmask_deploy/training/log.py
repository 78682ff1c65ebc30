"""`log.jsonl`: the record of a training run, one JSON object per line."""
from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..atomic import atomic_file, cannot_write
from ..errors import InputError

LOG_FILE = "log.jsonl"


class TrainingLog:
    """Appends records to the log of a run and reports them as lines of text.

    Args:
        folder: of the run; None writes and reports nothing (processes other than the first).
        say: called with one line per record.
    """

    def __init__(self, folder: Path | None, say: Callable[[str], None]) -> None:
        self._path = None if folder is None else folder / LOG_FILE
        self._say = say
        self._start = time.monotonic()
        self._held: list[str] | None = None  # records to be written by `release`

    def hold(self) -> None:
        """Keep records out of the file until `release`; they are reported all the same."""
        self._held = []

    def release(self) -> None:
        """Write the records held back.

        Raises:
            OutputError: they cannot be written.
        """
        lines, self._held = self._held or [], None
        self._append("".join(lines))

    def note(self, text: str) -> None:
        """Record a remark."""
        self._write({"note": text})
        self._tell(text)

    def losses(self, iteration: int, rate: float, losses: Mapping[str, float], pairs_per_s: float) -> None:
        """Record the mean losses since the last such record."""
        rounded = {name: round(value, 5) for name, value in losses.items()}
        self._write({"iteration": iteration, "seconds": round(self.seconds, 1), "rate": rate,
                     "pairs_per_s": round(pairs_per_s, 2), "losses": rounded})
        shown = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
        self._tell(f"{iteration:6d}  {shown}  rate {rate:.2e}  {pairs_per_s:.1f} pairs/s")

    def validation(self, iteration: int, scores: Mapping[str, Any], summary: str) -> None:
        """Record the scores of an evaluation."""
        self._write({"iteration": iteration, "seconds": round(self.seconds, 1), "validation": dict(scores)})
        self._tell(f"{iteration:6d}  {summary}")

    def has_validation(self, iteration: int) -> bool:
        """Whether the log has an evaluation after `iteration`."""
        return any(_iteration(line) == iteration and "validation" in json.loads(line) for line in self._lines())

    def resume(self, iteration: int, seconds: float) -> None:
        """Continue after `iteration`; the run took `seconds` up to there.

        Later records are dropped, because the resumed run repeats those iterations.
        """
        self._start = time.monotonic() - seconds
        lines = self._lines()
        if self._path is None or not lines:
            return
        with atomic_file(self._path, overwrite=True) as file:
            file.write("".join(line for line in lines if _iteration(line) <= iteration).encode())

    @property
    def seconds(self) -> float:
        """Seconds since the run began, excluding the time between interruption and resumption."""
        return time.monotonic() - self._start

    def _lines(self) -> list[str]:
        if self._path is None or not os.path.isfile(self._path):
            return []
        try:
            return self._path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        except OSError as error:
            raise InputError(f"{self._path} cannot be read ({error.strerror or error}); check its permissions"
                             ) from error

    def _tell(self, line: str) -> None:
        if self._path is not None:
            self._say(line)

    def _write(self, record: Mapping[str, Any]) -> None:
        line = json.dumps(record) + "\n"
        if self._held is None:
            self._append(line)
        else:
            self._held.append(line)

    def _append(self, text: str) -> None:
        if self._path is None:
            return
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise cannot_write(self._path, error) from error


def _iteration(line: str) -> float:
    """Iteration of a record: 0 for remarks, infinity for a line truncated by a crash."""
    try:
        return float(json.loads(line).get("iteration", 0))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return math.inf
