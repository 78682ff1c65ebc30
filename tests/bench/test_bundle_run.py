"""A turn of a bundle on a clip: both passes, and one process for the masks of all of them."""
from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from stmask_deploy.bench import bundle_run
from stmask_deploy.bench.bundle_run import FrameClock, open_run
from stmask_deploy.bench.row import Job, Row
from stmask_deploy.errors import OutputError
from stmask_deploy.pretrained import demo_bundle, demo_clip
from stmask_deploy.runtime.encoder_process import EncoderProcess
from stmask_deploy.runtime.output_folder import OutputFolder
from stmask_deploy.runtime.timing import FrameTimes


def test_a_turn_has_a_pass_of_each_mode_with_the_same_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[tuple[str, Any]] = []
    seconds: list[float] = []
    run_video = bundle_run.run_video

    def noted(*args: Any, **options: Any) -> Any:
        passes.append((options["mode"], options["encoder_process"]))
        summary = run_video(*args, **options)
        seconds.append(summary.seconds)
        return summary

    monkeypatch.setattr(bundle_run, "run_video", noted)
    opened: list[bool] = []
    open_bundle = bundle_run.open_bundle
    monkeypatch.setattr(bundle_run, "open_bundle", lambda *args, **options: (
        opened.append(options["is_whole"]) or open_bundle(*args, **options)))
    job = Job(Row.parse("onnxruntime:f32"), demo_bundle(), demo_clip(), tmp_path, 1, 1, 4, False)
    with open_run(job) as run:
        turns = [run.turn(), run.turn()]
    assert opened == [False]  # as stmask-run opens it: what a run does not read would count as memory and start
    assert [mode for mode, _ in passes] == ["auto", *["latency", "auto"] * 2]  # the first counts nowhere
    assert [sum(turn.run) for turn in turns] == pytest.approx(seconds[2::2])  # all of the time, none of it twice
    [process] = {process for _, process in passes}
    assert isinstance(process, EncoderProcess)
    for turn in turns:
        assert len(turn.stages) == len(turn.frames) == len(turn.run) == 4 and min(turn.frames + turn.run) > 0
        assert sum(count for call, count in turn.calls.items() if call.role == "frame") == 4  # without the warm-up's


def test_time_before_the_first_frame_is_not_taken_from_the_frames(tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    claimed = OutputFolder.claimed
    monkeypatch.setattr(OutputFolder, "claimed", lambda *given: (time.sleep(0.5), claimed(*given))[1])  # a slow disk
    with open_run(Job(Row.parse("onnxruntime:f32"), demo_bundle(), demo_clip(), tmp_path, 1, 1, 4, False)) as run:
        turn = run.turn()
    assert min(turn.frames + turn.run) > 0


def test_results_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OutputError("results.jsonl cannot be written: No space left on device; choose another output folder")

    monkeypatch.setattr(bundle_run, "run_video", full)
    job = Job(Row.parse("onnxruntime:f32"), demo_bundle(), demo_clip(), tmp_path, 1, 1, 4, False)
    with pytest.raises(OutputError, match="to a temporary folder .results.jsonl .*; TMPDIR names"), open_run(job):
        pass


def test_a_clock_that_starts_again_knows_nothing_of_before() -> None:
    clock = FrameClock()
    for stage in ("decode", "draw"):
        clock.restart()
        times = FrameTimes()
        with times.stage(stage):
            pass
        clock.end_frame(times)
    assert [set(stages) for stages in clock.frames] == [{"draw"}] and len(clock.periods()) == 1
