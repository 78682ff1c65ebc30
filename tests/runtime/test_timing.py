"""Where the time goes."""
from __future__ import annotations

import threading
import time

import pytest

from stmask_deploy.runtime.timing import NoTimer, StageTimer


def test_stages_are_added_up_frame_by_frame() -> None:
    timer = StageTimer()
    for _ in range(2):
        with timer.stage("masks"):
            time.sleep(0.002)
    with timer.stage("nms"):
        pass
    timer.end_frame()
    timer.end_frame()
    assert len(timer.frames) == 2 and timer.frames[1] == {}
    assert timer.frames[0]["masks"] >= 0.004 > timer.frames[0]["nms"] >= 0


def test_a_stage_that_fails_is_measured_and_fails() -> None:
    timer = StageTimer()
    with pytest.raises(ZeroDivisionError), timer.stage("draw"):
        raise ZeroDivisionError
    timer.end_frame()
    assert "draw" in timer.frames[0]


def test_a_frame_takes_its_seconds_from_thread_to_thread() -> None:
    timer = StageTimer()
    handed: list[dict[str, float]] = []

    def detect() -> None:
        for name in ("nms", "masks"):
            with timer.stage(name):
                pass
        handed.append(timer.hand_over())
        with timer.stage("frame_graph"):  # of the next frame
            pass

    with timer.stage("decode"):
        pass
    thread = threading.Thread(target=detect)
    thread.start()
    thread.join()
    timer.take_over({"masks": 2.0})
    timer.take_over(handed[0])
    timer.end_frame()
    assert set(timer.frames[0]) == {"decode", "nms", "masks"} and timer.frames[0]["masks"] >= 2.0
    assert timer.hand_over() == {} and len(timer.frames) == 1


def test_no_timer_can_be_entered_again_and_again() -> None:
    timer = NoTimer()
    with timer.stage("masks"), timer.stage("masks"):
        timer.end_frame()
    timer.take_over(timer.hand_over())
