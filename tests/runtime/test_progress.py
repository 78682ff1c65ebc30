from __future__ import annotations

import errno
import io
import sys
import time

import pytest

from stmask_deploy.runtime.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that `time.perf_counter` tells, as a list of one."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def run(total: int | None, steps: int, clock: list[float], step_s: float = 0.25, note: str = "") -> str:
    terminal = Terminal()
    with Progress(total, terminal) as progress:
        for _ in range(steps):
            clock[0] += step_s
            progress.advance(note)
    return terminal.getvalue()


def test_share_speed_and_time_left(clock: list[float]) -> None:
    text = run(400, 100, clock, note="3 objects")
    assert text.endswith("\n")
    assert text.splitlines()[-1].split("\r")[-1].rstrip() == "frame 100/400  25%  4.0 fps  1:15 left  3 objects"


@pytest.mark.parametrize(("total", "steps", "line"), [
    (None, 7, "frame 7  4.0 fps"),
    (3, 5, "frame 5  4.0 fps"),  # the announcement was wrong
    (0, 2, "frame 2  4.0 fps"),
    (40000, 1, "frame 1/40000  0%  4.0 fps  2:46:40 left"),
    (5, 5, "frame 5/5  100%  4.0 fps  0:00 left"),
])
def test_lines(clock: list[float], total: int | None, steps: int, line: str) -> None:
    assert run(total, steps, clock).split("\r")[-1].rstrip() == line


def test_speed_follows_changes(clock: list[float]) -> None:
    progress = Progress(None, Terminal())
    for step_s in [5.0] * 100 + [0.5] * 60:
        clock[0] += step_s
        progress.advance()
    assert progress.rate == pytest.approx(2.0)


def test_a_shorter_line_covers_a_longer_one(clock: list[float]) -> None:
    terminal = Terminal()
    with Progress(None, terminal) as progress:
        for note in ["a rather long note", "short"]:
            clock[0] += 1
            progress.advance(note)
    first, second = terminal.getvalue().strip("\r\n").split("\r")
    assert len(second) >= len(first)


def test_redraws_are_few(clock: list[float]) -> None:
    assert run(None, 1000, clock, step_s=0.001).count("\r") <= 12


def test_the_last_step_is_drawn_however_fast(clock: list[float]) -> None:
    assert run(20, 20, clock, step_s=0.001).split("\r")[-1].startswith("frame 20/20  100%")


def test_quiet_on_a_pipe(clock: list[float]) -> None:
    pipe = io.StringIO()
    with Progress(10, pipe) as progress:
        for _ in range(10):
            clock[0] += 1
            progress.advance()
    assert pipe.getvalue() == ""


def test_quiet_where_standard_error_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with Progress(10) as progress:
        progress.advance()
        assert progress.line() == "frame 1/10  10%  0.0 fps"


def test_no_time_has_passed(clock: list[float]) -> None:
    assert run(None, 1, clock, step_s=0.0).strip() == "frame 1  0.0 fps"


def test_nothing_drawn_leaves_no_line() -> None:
    assert run(10, 0, [0.0]) == ""


@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), ValueError("closed file")])
@pytest.mark.parametrize("lasts", [0, 1])
def test_a_terminal_that_goes_away_is_no_reason_to_end(clock: list[float], error: Exception, lasts: int) -> None:
    class Gone(Terminal):
        def write(self, text: str) -> int:
            if len(self.getvalue().split("\r")) > lasts + 1:
                raise error
            return super().write(text)

        def flush(self) -> None:
            if not lasts:
                raise error

    with Progress(9, Gone()) as progress:
        for _ in range(9):
            clock[0] += 0.25
            progress.advance()
