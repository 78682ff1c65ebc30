"""Where the time goes."""
from __future__ import annotations

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


def test_no_timer_can_be_entered_again_and_again() -> None:
    timer = NoTimer()
    with timer.stage("masks"), timer.stage("masks"):
        timer.end_frame()
