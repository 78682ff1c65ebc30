"""A whole run: the files it leaves, also when something goes wrong in the middle."""
from __future__ import annotations

import gc
import json
import os
import signal
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from tiny_bundles import SCORES, picture, save_pictures, write_bundle

from stmask_deploy.errors import InputError, OutputError
from stmask_deploy.pretrained import demo_clip
from stmask_deploy.runtime import run_writer
from stmask_deploy.runtime.frame_source import Frame, FrameSource
from stmask_deploy.runtime.interrupt import InterruptFlag
from stmask_deploy.runtime.model import Model, load
from stmask_deploy.runtime.progress import Progress
from stmask_deploy.runtime.results_jsonl import read_results
from stmask_deploy.runtime.run import RunSummary, run_video
from stmask_deploy.runtime.sources import open_source
from stmask_deploy.runtime.timing import StageTimer

BRIGHTNESSES = [100, 110, 0, 120, 130]


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return save_pictures(tmp_path / "clip", BRIGHTNESSES)


def run(bundle: Path, source: Path, folder: Path, **options: Any) -> RunSummary:
    with open_source(source) as opened:
        return run_video(load(bundle), opened, folder, **options)


def test_all_files_of_a_run(bundle: Path, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    summary = run(bundle, clip, out)
    assert (summary.frames, summary.identities, summary.lost_candidates, summary.is_interrupted) == (5, 3, 0, False)
    assert summary.fps > 0 and not summary.damage.is_damaged
    assert summary.files == (out / "results.jsonl", out / "results.json", out / "video.mp4")
    assert sorted(path.name for path in out.iterdir()) == ["results.json", "results.jsonl", "video.mp4"]
    results = read_results(out / "results.jsonl")
    assert (results.header.source, results.header.width, results.header.height) == ("clip", 128, 80)
    assert results.header.bundle["export_id"] == "0123abcd" and "ONNX Runtime" in results.header.bundle["device"]
    assert results.header.options["tracker"] == "released"
    assert [[row["origin"] for row in frame["instances"]] for frame in results.frames] == [
        ["propagated" if brightness == 0 else "detected"] * 3 for brightness in BRIGHTNESSES]
    assert results.end is not None and results.end["frames"] == 5 and not results.end["interrupted"]
    sequences = json.loads((out / "results.json").read_text())
    assert [len(entry["segmentations"]) for entry in sequences] == [5, 5, 5]
    with av.open(str(out / "video.mp4")) as video:
        assert len(list(video.decode(video=0))) == 5


def test_results_keep_what_is_not_drawn(bundle: Path, clip: Path, tmp_path: Path,
                                        monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[int]] = []

    def note(image: Any, result: Any, _detect_every: int) -> Any:
        drawn.append(result.ids.tolist())
        return image

    monkeypatch.setattr(run_writer, "draw_result", note)
    run(bundle, clip, tmp_path / "out", draw_threshold=float(SCORES[1].max() * 0.95) - 1e-3)
    assert drawn == [[0, 1], [0, 1], [0], [0, 1], [0, 1]]  # scores decay by 0.95 in the third frame
    assert all(len(frame["instances"]) == 3 for frame in read_results(tmp_path / "out" / "results.jsonl").frames)


def test_an_object_of_exactly_the_asked_score_is_drawn(bundle: Path, clip: Path, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[int]] = []
    monkeypatch.setattr(run_writer, "draw_result",
                        lambda image, result, _detect_every: drawn.append(result.ids.tolist()) or image)
    score = float(load(bundle).step(picture(100)).scores[1])
    run(bundle, clip, tmp_path / "out", draw_threshold=score, max_frames=1)
    assert drawn == [[0, 1]]


@pytest.mark.parametrize(("max_frames", "total"), [(None, 5), (2, 2), (99, 5)])
def test_progress_is_towards_the_last_frame_of_the_run(bundle: Path, clip: Path, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch, max_frames: int | None,
                                                       total: int) -> None:
    lines: list[str] = []

    class Noted(Progress):
        def close(self) -> None:
            lines.append(self.line())

    monkeypatch.setattr("stmask_deploy.runtime.run.Progress", Noted)
    run(bundle, clip, tmp_path / "out", draw=False, show_progress=True, max_frames=max_frames)
    assert [line.split()[1:3] for line in lines] == [[f"{total}/{total}", "100%"]]


def test_drawing_is_told_how_often_the_detector_looks(bundle: Path, clip: Path, tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []

    def note(image: Any, _result: Any, detect_every: int) -> Any:
        told.append(detect_every)
        return image

    monkeypatch.setattr(run_writer, "draw_result", note)
    with open_source(clip) as opened:
        run_video(load(bundle, detect_every=2), opened, tmp_path / "out")
    assert told == [2] * len(BRIGHTNESSES)


def test_the_video_is_as_wide_as_the_source_is_shown(bundle: Path, tmp_path: Path) -> None:
    source = Pictures("video", lambda: None)
    source.pixel_aspect = Fraction(3, 2)
    run_video(load(bundle), source, tmp_path)
    with av.open(str(tmp_path / "video.mp4")) as video:
        assert video.streams.video[0].display_aspect_ratio == Fraction(128, 80) * Fraction(3, 2)


def test_no_video(bundle: Path, clip: Path, tmp_path: Path) -> None:
    summary = run(bundle, clip, tmp_path / "out", draw=False)
    assert [path.name for path in summary.files] == ["results.jsonl", "results.json"]


def test_a_single_picture_is_annotated_as_a_picture(bundle: Path, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = run(bundle, clip / "0.png", out)
    assert [path.name for path in summary.files] == ["results.jsonl", "results.json", "frame.png"]
    annotated = cv2.imread(str(out / "frame.png"))
    assert annotated is not None and annotated.shape == (80, 128, 3) and (annotated != picture(100)).any()


def test_an_earlier_run_is_replaced_as_a_whole_and_only_when_asked(bundle: Path, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(bundle, clip, out)
    before = (out / "results.jsonl").read_bytes()
    with pytest.raises(OutputError, match="holds results already"):
        run(bundle, clip, out)
    assert (out / "results.jsonl").read_bytes() == before
    run(bundle, clip, out, draw=False, max_frames=2, overwrite=True)
    assert sorted(path.name for path in out.iterdir()) == ["results.json", "results.jsonl"]
    assert len(read_results(out / "results.jsonl").frames) == 2


def test_a_source_that_was_read_costs_no_earlier_results(bundle: Path, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(bundle, clip, out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with open_source(clip) as source:
        list(source)
        with pytest.raises(InputError, match="read already"):
            run_video(load(bundle), source, str(out), overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_frames_too_large_for_a_video_are_refused_before_anything_is_written(bundle: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "wide.png"), np.zeros((2, 16385, 3), np.uint8))
    (tmp_path / "wide").mkdir()
    (tmp_path / "wide.png").rename(tmp_path / "wide" / "0.png")
    with pytest.raises(OutputError, match="16385x2 do not fit .* --no-video"):
        run(bundle, tmp_path / "wide", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert run(bundle, tmp_path / "wide", tmp_path / "out", draw=False).frames == 1


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_a_folder_belongs_to_one_run_at_a_time(bundle: Path, clip: Path, tmp_path: Path, mode: str) -> None:
    refused: list[str] = []

    def meanwhile() -> None:
        with pytest.raises(OutputError) as caught:
            run(bundle, clip, tmp_path / "out", overwrite=True, max_frames=2)
        refused.append(caught.value.line)

    assert run_video(load(bundle), Pictures("video", meanwhile), tmp_path / "out", mode=mode).frames == 10
    assert len(refused) == 1 and "another run is writing to" in refused[0]
    assert len(read_results(tmp_path / "out" / "results.jsonl").frames) == 10
    assert run(bundle, clip, tmp_path / "out", overwrite=True, max_frames=2).frames == 2


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_no_frame_waits_for_pythons_search_for_circles(tmp_path: Path, mode: str) -> None:
    """That comes too rarely for what frames take in memory."""
    model, found = load(), []
    for count in (4, 12):
        gc.collect()
        gc.disable()
        try:
            with open_source(demo_clip()) as source:
                run_video(model, source, tmp_path / str(count), max_frames=count, mode=mode)
            found.append(gc.collect())
        finally:
            gc.enable()
    assert found[1] <= found[0]


def test_every_stage_is_timed(bundle: Path, clip: Path, tmp_path: Path) -> None:
    timer = StageTimer()
    with open_source(clip) as source:
        run_video(load(bundle, timer=timer), source, tmp_path / "out")
    assert len(timer.frames) == 5
    assert {"masks", "draw", "encode", "decode"} < set(timer.frames[0])


def test_lost_candidates_are_reported(clip: Path, tmp_path: Path) -> None:
    summary = run(write_bundle(tmp_path / "bundle", count=10), clip, tmp_path / "out", draw=False)
    assert summary.lost_candidates == 4 * 4  # the dark frame has none


def test_damage_of_the_input_is_reported(bundle: Path, clip: Path, tmp_path: Path) -> None:
    (clip / "2.png").write_bytes(b"not a picture")
    summary = run(bundle, clip, tmp_path / "out")
    assert summary.frames == 4 and summary.damage.unreadable_files == 1
    results = read_results(tmp_path / "out" / "results.jsonl")
    assert [frame["index"] for frame in results.frames] == [0, 1, 3, 4]
    assert results.end is not None and results.end["damage"]["unreadable_files"] == 1
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())[0]["segmentations"]) == 5


def test_unreadable_pictures_at_the_ends_have_their_place_in_the_list(bundle: Path, clip: Path, tmp_path: Path) -> None:
    for name in ("0.png", "4.png"):
        (clip / name).write_bytes(b"")

    def gaps(max_frames: int | None) -> list[bool]:
        summary = run(bundle, clip, tmp_path / "out", max_frames=max_frames, overwrite=True)
        assert summary.damage.unreadable_names == (("0.png", "4.png") if max_frames is None else ("0.png",))
        entries = json.loads((tmp_path / "out" / "results.json").read_text())
        return [rle is None for rle in entries[0]["segmentations"]]

    assert gaps(None) == [True, False, False, False, True]
    assert gaps(3) == [True, False, False, False]  # nobody asked for the last one
    assert gaps(1) == [True, False]


@pytest.mark.parametrize(("limit", "is_written"), [(15, True), (14, False)])
def test_a_list_of_too_many_items_is_left_out(bundle: Path, clip: Path, tmp_path: Path,
                                              caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch,
                                              limit: int, is_written: bool) -> None:
    monkeypatch.setattr(run_writer, "MAX_ITEMS", limit)
    summary = run(bundle, clip, tmp_path / "out")
    assert ("results.json" in [path.name for path in summary.files]) == is_written
    assert ("video.mp4" in [path.name for path in summary.files]) and summary.identities == 3
    assert len(read_results(tmp_path / "out" / "results.jsonl").frames) == 5
    assert caplog.messages == ([] if is_written else [
        "clip: 3 identities in 5 frames are too many for results.json, which has an item for each frame of each; "
        "results.jsonl holds everything"])


def test_the_video_is_complete_before_the_list_is_begun(bundle: Path, clip: Path, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OutputError("disk full")

    monkeypatch.setattr(run_writer, "write_result_list", full)
    with pytest.raises(OutputError, match="disk full"):
        run(bundle, clip, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["results.jsonl", "video.mp4"]
    assert read_results(tmp_path / "out" / "results.jsonl").end is not None


class Pictures(FrameSource):
    """A source made in the test; `event` happens before frame 3 is delivered."""

    def __init__(self, kind: str, event: Any) -> None:
        super().__init__()
        self.kind = kind  # type: ignore[assignment]
        self.name, self.width, self.height, self.fps, self.num_frames = "pictures", 128, 80, 30.0, None
        self._event = event

    def _frames(self) -> Iterator[Frame]:
        for index in range(10):
            if index == 3:
                self._event()
            yield Frame(index, index / 30, picture(100))

    def _release(self) -> None:
        pass


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_completes_the_files(bundle: Path, tmp_path: Path) -> None:
    summary = run_video(load(bundle), Pictures("video", press), tmp_path, mode="latency")
    assert summary.is_interrupted and summary.frames == summary.damage.frames == 4
    results = read_results(tmp_path / "results.jsonl")
    assert len(results.frames) == 4 and results.end is not None and results.end["interrupted"]
    assert len(json.loads((tmp_path / "results.json").read_text())[0]["segmentations"]) == 4
    with av.open(str(tmp_path / "video.mp4")) as video:
        assert len(list(video.decode(video=0))) == 4


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_closing_the_source_interrupts(bundle: Path, tmp_path: Path, mode: str) -> None:
    source = Pictures("video", lambda: source.close())
    summary = run_video(load(bundle), source, tmp_path, mode=mode)
    assert summary.is_interrupted and summary.frames == summary.damage.frames == 4
    results = read_results(tmp_path / "results.jsonl")
    assert len(results.frames) == 4 and results.end is not None and results.end["interrupted"]


def test_an_error_in_the_middle_leaves_only_readable_results(bundle: Path, tmp_path: Path) -> None:
    def fail() -> None:
        raise InputError("frame 3 is gone")

    with pytest.raises(InputError, match="frame 3 is gone") as caught:
        run_video(load(bundle), Pictures("video", fail), tmp_path)
    assert caught.value.line == f"frame 3 is gone; 3 frames before that in {tmp_path / 'results.jsonl'}"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.jsonl", "video.part.mp4"]
    results = read_results(tmp_path / "results.jsonl")
    assert len(results.frames) == 3 and results.end is None
    with av.open(str(tmp_path / "video.part.mp4")) as video:
        assert len(list(video.decode(video=0))) == 3


def test_a_live_source_is_bounded_and_has_no_list(bundle: Path, tmp_path: Path) -> None:
    summary = run_video(load(bundle), Pictures("camera", lambda: None), tmp_path)
    assert [path.name for path in summary.files] == ["results.jsonl", "video.mp4"]
    assert read_results(tmp_path / "results.jsonl").header.options["memory"] == "bounded"


def test_a_picture_that_cannot_be_encoded(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "imencode", lambda *_: (False, np.zeros(0)))
    with pytest.raises(OutputError, match="--no-video"):
        run_video(load(bundle), Pictures("image", lambda: None), tmp_path)


def test_the_model_can_run_the_next_source(bundle: Path, tmp_path: Path) -> None:
    model: Model = load(bundle)
    for name in ("one", "two"):
        run_video(model, Pictures("video", lambda: None), tmp_path / name, draw=False)
    first, second = (read_results(tmp_path / name / "results.jsonl").frames for name in ("one", "two"))
    assert first == second


def test_frames_detected_ahead_do_not_count(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Candidates lost in frames that an interrupted run does not write."""
    monkeypatch.setattr(Model, "leaves_cores", True)
    model = load(write_bundle(tmp_path / "bundle", count=10))
    for number in range(20):
        cv2.imwrite(str(clip / f"more-{number}.png"), picture(120))

    class Stopping(InterruptFlag):
        @property  # type: ignore[override]
        def is_set(self) -> bool:
            return next(frames) >= 3

        @is_set.setter
        def is_set(self, value: bool) -> None:
            pass

    for draw in (False, True):
        frames = iter(range(1, 100))
        with open_source(clip) as source:
            summary = run_video(model, source, tmp_path / f"out-{draw}", draw=draw, interrupt=Stopping())
        assert summary.is_interrupted and summary.frames == 3
        assert summary.lost_candidates == 2 * 4  # of 100 and 110; the third frame is dark


@pytest.mark.parametrize("threshold", [float("nan"), -0.1, 5])
def test_a_draw_threshold_that_is_no_share(bundle: Path, clip: Path, tmp_path: Path, threshold: float) -> None:
    with pytest.raises(InputError, match="draw_threshold must be a number from 0 to 1, got"):
        run(bundle, clip, tmp_path / "out", draw_threshold=threshold)
    assert not (tmp_path / "out").exists()
