"""A progress line on a terminal: share done, frames per second, time left."""
from __future__ import annotations

import sys
import time
from collections import deque
from types import TracebackType
from typing import TextIO

REDRAW_S = 0.1
WINDOW = 50  # frames in the moving average of the speed


class Progress:
    """Context manager that draws one line on a terminal; if the stream is not a terminal, it draws nothing.

    Args:
        total: expected number of steps; None if unknown. Once exceeded, it is treated as unknown.
        stream: where to draw, by default standard error.
    """

    def __init__(self, total: int | None, stream: TextIO | None = None) -> None:
        self._total = total
        chosen: TextIO | None = sys.stderr if stream is None else stream  # None if it was closed before the start
        self._terminal = chosen if chosen is not None and chosen.isatty() else None
        self._done = 0
        self._times: deque[float] = deque([time.perf_counter()], maxlen=WINDOW + 1)
        self._drawn_at = float("-inf")
        self._drawn_width = 0

    def advance(self, note: str = "") -> None:
        """Count one more step; `note` is shown at the end of the line."""
        self._done += 1
        if self._terminal is None:
            return
        now = time.perf_counter()
        self._times.append(now)
        if now - self._drawn_at >= REDRAW_S or self._done == self._total:
            self._drawn_at = now
            text = self.line(note)
            self._write("\r" + text.ljust(self._drawn_width))
            self._drawn_width = len(text)

    @property
    def rate(self) -> float:
        """Steps per second over the last `WINDOW` steps; 0 before the first one."""
        elapsed = self._times[-1] - self._times[0]
        return (len(self._times) - 1) / elapsed if elapsed > 0 else 0.0

    def line(self, note: str = "") -> str:
        """The text of the progress line."""
        total = self._total if self._total and self._done <= self._total else None
        rate = self.rate
        parts = [f"frame {self._done}/{total}" if total else f"frame {self._done}"]
        if total:
            parts.append(f"{100 * self._done // total}%")
        parts.append(f"{rate:.1f} fps" if rate < 100 else f"{rate:.0f} fps")
        if total and rate > 0:
            parts.append(f"{_clock((total - self._done) / rate)} left")
        return "  ".join([*parts, note]).rstrip()

    def _write(self, text: str) -> None:
        """Write to the terminal, if it is still there: its window may have been closed, which is no reason to end."""
        if self._terminal is not None:
            try:
                self._terminal.write(text)
                self._terminal.flush()
            except (OSError, ValueError):
                self._terminal = None

    def close(self) -> None:
        """End the line, so that later output starts on a new one."""
        if self._terminal is not None and self._drawn_width:
            self._drawn_width = 0
            self._write("\n")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


def _clock(seconds: float) -> str:
    """62 -> 1:02, 3723 -> 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
