"""Where the time goes."""
from __future__ import annotations

import threading

import pytest

from stmask_deploy.runtime.timing import FrameTimes, StageTimer


def test_the_times_of_a_stage_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [10.0]
    monkeypatch.setattr("stmask_deploy.runtime.timing.time.perf_counter", lambda: now[0])
    times = FrameTimes()
    for seconds in (0.5, 0.25):
        with times.stage("masks"):
            now[0] += seconds
        now[0] += 100
    with times.stage("nms"):
        pass
    assert times.seconds == {"masks": 0.75, "nms": 0.0} and times.start == 10.0


def test_a_stage_that_fails_is_measured_and_fails() -> None:
    times = FrameTimes()
    with pytest.raises(ZeroDivisionError), times.stage("draw"):
        raise ZeroDivisionError
    assert set(times.seconds) == {"draw"}


def test_frames_in_flight_have_their_own_times_wherever_they_go() -> None:
    first, second = FrameTimes(), FrameTimes()

    def detect() -> None:
        with first.stage("nms"), second.stage("frame_graph"):
            pass

    with first.stage("decode"):
        thread = threading.Thread(target=detect)
        thread.start()
        thread.join()
    timer = StageTimer()
    timer.end_frame(first)
    timer.end_frame(second)
    assert [set(frame) for frame in timer.frames] == [{"decode", "nms"}, {"frame_graph"}]
