"""The overlapped run against the one frame by frame: the same files, the same failures, no thread left."""
from __future__ import annotations

import dataclasses
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from threads import no_thread_left
from tiny_bundles import picture, save_pictures

import stmask_deploy
from stmask_deploy.errors import InputError
from stmask_deploy.pretrained import demo_clip
from stmask_deploy.runtime import model as model_module
from stmask_deploy.runtime import pipeline as pipeline_module
from stmask_deploy.runtime import run_writer
from stmask_deploy.runtime.detector import Detector
from stmask_deploy.runtime.frame_source import Frame, FrameSource
from stmask_deploy.runtime.in_turn import InTurn
from stmask_deploy.runtime.model import Model, load
from stmask_deploy.runtime.options import RunOptions
from stmask_deploy.runtime.pipeline import Pipeline
from stmask_deploy.runtime.progress import Progress
from stmask_deploy.runtime.results_jsonl import read_results
from stmask_deploy.runtime.run import run_video
from stmask_deploy.runtime.sources import open_source
from stmask_deploy.runtime.timing import StageTimer
from stmask_deploy.runtime.tracking import WORKERS, is_overlapped, track_overlapped

BRIGHTNESSES = [0, 100, 110, 0, 120, 130, 0, 0, 90, 200]
OPTIONS: list[dict[str, Any]] = [{}, {"tracker": "paper"}, {"tracker": "frame"}, {"nms": "per-class"},
                                 {"detect_every": 2}, {"tracker": "paper", "detect_every": 4, "retire_after": 10}]


@pytest.fixture(autouse=True, params=[0, WORKERS], ids=["graphs in turn", "graphs side by side"])
def num_workers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Every test, with overlapped runs of either kind; which one a bundle has depends on the machine."""
    chosen: int = request.param

    def track(*args: Any, detect_workers: int) -> Any:
        return track_overlapped(*args, detect_workers=chosen)

    monkeypatch.setattr(model_module, "track_overlapped", track)
    return chosen


class Pictures(FrameSource):
    """`BRIGHTNESSES` again and again; `event` happens before frame 5 is delivered."""

    kind = "video"

    def __init__(self, num_frames: int = 12, event: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.name, self.width, self.height, self.fps, self.num_frames = "pictures", 128, 80, 30.0, num_frames
        self._event = event

    def _frames(self) -> Iterator[Frame]:
        assert self.num_frames is not None
        for index in range(self.num_frames):
            if index == 5:
                self._event()
            yield Frame(index, index / 30, picture(BRIGHTNESSES[index % len(BRIGHTNESSES)]))

    def _release(self) -> None:
        pass


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    folder = save_pictures(tmp_path / "clip", BRIGHTNESSES)
    (folder / "4.png").write_bytes(b"not a picture")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def run_both(make_model: Callable[[], Model], source: Path, folder: Path, max_frames: int | None = None) -> None:
    summaries = []
    for mode in ("latency", "throughput"):
        with open_source(source) as opened, no_thread_left():
            summaries.append(run_video(make_model(), opened, folder / mode, mode=mode, max_frames=max_frames))
    for name in ("frames", "identities", "lost_candidates", "damage"):
        assert getattr(summaries[0], name) == getattr(summaries[1], name)
    assert files(folder / "latency") == files(folder / "throughput")


@pytest.mark.parametrize("options", OPTIONS)
def test_the_same_files_as_frame_by_frame(bundle: Path, clip: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    run_both(lambda: load(bundle, **options), clip, tmp_path / "out")
    results = read_results(tmp_path / "out" / "throughput" / "results.jsonl")
    assert [frame["index"] for frame in results.frames] == [0, 1, 2, 3, 5, 6, 7, 8, 9]
    assert sum(len(frame["instances"]) for frame in results.frames) > 9


@pytest.mark.parametrize("options", [{}, {"tracker": "paper"}, {"tracker": "frame"}, {"backend": "openvino"}])
def test_the_same_files_of_the_demo(tmp_path: Path, options: dict[str, Any]) -> None:
    model = stmask_deploy.load(**options)
    run_both(lambda: model, demo_clip(), tmp_path, max_frames=6)


def test_lost_candidates_and_the_limit_of_frames(make_bundle: Callable[..., Path], clip: Path, tmp_path: Path) -> None:
    folder = make_bundle(count=10)
    for max_frames in (1, 6):
        run_both(lambda: load(folder), clip, tmp_path / str(max_frames), max_frames)


def failing(is_due: Callable[..., bool], original: Callable[..., Any]) -> Callable[..., Any]:
    """`original`, but a call that is due fails; it is asked with the call's arguments."""
    def call(*args: Any, **kwargs: Any) -> Any:
        if is_due(*args):
            raise RuntimeError("frame 5")
        return original(*args, **kwargs)

    return call


def sixth_call() -> Callable[..., bool]:
    calls = iter(range(10_000))
    return lambda *_args: next(calls) == 5


IN_DETECTION = ("frame graph", "nms", "instance graph")


@pytest.mark.parametrize("place", ["source", *IN_DETECTION, "temporal graph", "prototype graph", "masks", "tracker",
                                   "results", "drawing", "video", "progress"])
def test_a_failure_anywhere_leaves_what_it_leaves_frame_by_frame(bundle: Path, tmp_path: Path, place: str,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("frame 5")

    def detect(pipeline: Pipeline, image: Any, position: int, times: Any) -> Any:
        current.position = position
        return original(pipeline, image, position, times)

    # Two threads detect: the order of calls is not that of the frames.
    current, original = threading.local(), Pipeline.detect
    monkeypatch.setattr(Pipeline, "detect", detect)
    left = {}
    for mode in ("latency", "throughput"):
        model, source = load(bundle), Pictures(event=fail if place == "source" else lambda: None)
        with monkeypatch.context() as patch, no_thread_left():
            for name, owner, attribute in (
                    ("frame graph", model._bundle.frame, "run"), ("nms", Detector, "_suppress"),
                    ("instance graph", model._bundle.instances, "run"),
                    ("temporal graph", model._bundle.temporal, "run"),
                    ("prototype graph", model._bundle.prototypes, "run"), ("masks", pipeline_module, "assemble_masks"),
                    ("tracker", Pipeline, "track"), ("results", run_writer.ResultsWriter, "write"),
                    ("drawing", run_writer, "draw_result"), ("video", run_writer.VideoWriter, "write"),
                    ("progress", Progress, "advance")):
                if name == place:
                    is_due = (lambda *_: current.position == 5) if place in IN_DETECTION else sixth_call()
                    patch.setattr(owner, attribute, failing(is_due, getattr(owner, attribute)))
            with pytest.raises(RuntimeError, match="frame 5"):
                run_video(model, source, tmp_path / mode, mode=mode, show_progress=True)
        left[mode] = files(tmp_path / mode)
    assert left["latency"] == left["throughput"]
    assert sorted(left["latency"]) == ["results.jsonl", "video.part.mp4"]
    assert len(read_results(tmp_path / "throughput" / "results.jsonl").frames) >= 5


def test_whether_graphs_run_at_the_same_time(bundle: Path, num_workers: int) -> None:
    model, running, most = load(bundle), 0, 0
    lock = threading.Lock()

    def counted(run: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            time.sleep(0.01)
            try:
                return run(*args, **kwargs)
            finally:
                with lock:
                    running -= 1
        return call

    for graph in (model._bundle.frame, model._bundle.temporal):
        graph.run = counted(graph.run)  # type: ignore[union-attr, method-assign]
    assert len(list(model.track_frames(Pictures(), mode="throughput"))) == 12
    assert (most > 1) == (num_workers > 0)


def test_a_video_that_is_left_to_the_collector_does_not_stop_another_one(bundle: Path) -> None:
    """The collector may come while another video of the same model has its turn."""
    opened = load(bundle, threads=1)._bundle
    turn, is_done = threading.Lock(), threading.Event()
    graphs = {"frame": InTurn(opened.frame, turn)}
    model = Model(dataclasses.replace(opened, **graphs), RunOptions())

    def work() -> None:
        cycle: list[Any] = [model.track_frames(Pictures(10_000), mode="throughput")]
        cycle.append(cycle)
        next(cycle[0])
        with turn:
            time.sleep(0.05)  # for the other threads to wait for it
            del cycle
            gc.collect()
        is_done.set()

    before = set(threading.enumerate())
    gc.disable()  # so that it is collected there
    try:
        threading.Thread(target=work, daemon=True).start()
        assert is_done.wait(20)
    finally:
        gc.enable()
    deadline = time.monotonic() + 20
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not set(threading.enumerate()) - before
    assert len(list(model.fork().track_frames(Pictures(), mode="throughput"))) == 12


@pytest.mark.parametrize(("may_overlap", "expected"), [(False, 0), (True, WORKERS)])
def test_how_many_threads_detect(bundle: Path, may_overlap: bool, expected: int,
                                 monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def track(*args: Any, detect_workers: int) -> Any:
        asked.append(detect_workers)
        return track_overlapped(*args, detect_workers=detect_workers)

    monkeypatch.setattr(model_module, "track_overlapped", track)
    model = load(bundle, threads=1)
    model = Model(dataclasses.replace(model._bundle, may_overlap=may_overlap), RunOptions())
    assert len(list(model.track_frames(Pictures(), mode="throughput"))) == 12 and asked == [expected]


def test_ctrl_c_completes_the_files(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    source = Pictures(10_000, lambda: os.kill(os.getpid(), signal.SIGINT))
    model = load(make_bundle(count=10))  # four more than there are rows
    with no_thread_left():
        summary = run_video(model, source, tmp_path, draw=False, mode="throughput")
    assert summary.is_interrupted and 1 <= summary.frames < 10_000
    results = read_results(tmp_path / "results.jsonl")
    assert results.end == {"type": "end", "frames": summary.frames, "interrupted": True,
                           "damage": summary.damage.to_dict()}
    assert len(results.frames) == summary.damage.frames == summary.frames < source.damage.frames  # read ahead
    assert summary.lost_candidates == 4 * sum(BRIGHTNESSES[frame["index"]] > 0 for frame in results.frames)
    listed = json.loads((tmp_path / "results.json").read_text())
    assert all(len(entry["segmentations"]) == summary.frames for entry in listed)


def test_a_reader_that_goes_away_leaves_no_thread(bundle: Path, clip: Path) -> None:
    model = load(bundle)
    with no_thread_left():
        for result in model.track(clip, mode="throughput"):
            if result.index == 2:
                break
    with no_thread_left():
        results = model.track(clip, mode="throughput")
        next(results)
        results.close()
    with no_thread_left():
        model.track(clip, mode="throughput")  # never read
    assert [result.ids.tolist() for result in model.track(clip, max_frames=2)] == [[], [0, 1, 2]]


def test_a_run_left_early_leaves_a_new_model(bundle: Path, clip: Path) -> None:
    """The threads have tracked frames that nobody saw: going on from there would depend on how fast they were."""
    model = load(bundle, detect_every=2)
    for result in model.track(clip, mode="throughput"):
        if result.index == 3:
            break
    new = load(bundle, detect_every=2)
    for level in (90, 95, 100):
        found, expected = model.step(picture(level)), new.step(picture(level))
        assert (found.index, found.ids.tolist(), found.origins) == (expected.index, expected.ids.tolist(),
                                                                    expected.origins)
        assert np.array_equal(found.boxes_px, expected.boxes_px)


@pytest.mark.parametrize("place", ["end of the source", "files"])
def test_ctrl_c_after_the_last_frame_interrupts_nothing(bundle: Path, tmp_path: Path, place: str,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    owner, attribute = (run_writer.RunWriter, "finish") if place == "files" else (Pictures, "_frames")
    original = getattr(owner, attribute)

    def press_and_finish(*args: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return original(*args)

    def read_and_press(source: Pictures) -> Iterator[Frame]:
        yield from original(source)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(owner, attribute, press_and_finish if place == "files" else read_and_press)
    summary = run_video(load(bundle), Pictures(), tmp_path, draw=False, mode="latency")
    end = read_results(tmp_path / "results.jsonl").end
    assert end is not None and (summary.frames, summary.is_interrupted, end["interrupted"]) == (12, False, False)


def test_steps_go_on_where_an_overlapped_run_ended(bundle: Path, clip: Path) -> None:
    answers = []
    for mode in ("latency", "throughput"):
        model = load(bundle, detect_every=2)
        tracked = list(model.track(clip, max_frames=3, mode=mode))
        steps = [model.step(picture(80)) for _ in range(3)]
        answers.append([(result.index, result.ids.tolist(), result.origins) for result in tracked + steps])
    assert answers[0] == answers[1]
    assert [index for index, _, _ in answers[0]] == [0, 1, 2, 3, 4, 5]
    assert [origins[0] for _, _, origins in answers[0][2:]] == ["detected", "propagated", "detected", "propagated"]


def test_each_frame_has_its_own_stages(bundle: Path, num_workers: int) -> None:
    stages = {}
    for mode in ("latency", "throughput"):
        timer = StageTimer()
        list(load(bundle, timer=timer, detect_every=3).track_frames(Pictures(), mode=mode))
        stages[mode] = [set(frame) for frame in timer.frames]
    graphs = {"frame_graph", "prototype_graph"}
    without = {mode: [frame - graphs for frame in frames] for mode, frames in stages.items()}
    assert without["latency"] == without["throughput"]
    # Of the key frames 0, 3, 6 and 9 only the last is not black: its objects are propagated from then on.
    assert ["temporal_graph" in frame for frame in stages["throughput"]] == [False] * 10 + [True] * 2
    assert ["nms" in frame for frame in stages["throughput"]] == [index % 3 == 0 for index in range(12)]
    # Until then other frames need no graph; threads that run ahead do not know that there are no objects.
    for mode, frames in stages.items():
        assert ["frame_graph" in frame for frame in frames] == [
            index % 3 == 0 or index > 9 or (mode == "throughput" and num_workers > 0) for index in range(12)]


@pytest.mark.parametrize(("mode", "overlapped"), [
    ("auto", ["video", "folder"]), ("latency", []), ("throughput", ["video", "folder", "image", "camera"])])
def test_which_sources_are_overlapped(mode: str, overlapped: list[str]) -> None:
    source = Pictures()
    for kind in ("video", "folder", "image", "camera"):
        source.kind = kind  # type: ignore[misc]
        assert is_overlapped(mode, source) is (kind in overlapped)


@pytest.mark.parametrize("mode", ["latency", "throughput"])
@pytest.mark.parametrize("max_frames", [12, sys.maxsize, sys.maxsize + 1, 10**30, np.uint64(2**64 - 1)])
def test_more_frames_than_there_are_may_be_asked_for(bundle: Path, max_frames: int, mode: str) -> None:
    assert len(list(load(bundle).track_frames(Pictures(), max_frames=max_frames, mode=mode))) == 12


@pytest.mark.parametrize(("given", "told"), [
    ({"mode": "fast"}, "known: auto, latency, throughput"),
    ({"max_frames": 0}, "max_frames must be a positive whole number, got 0"),
    ({"max_frames": -1}, "got -1"),
    ({"max_frames": 2.5}, "got 2.5"),
    ({"max_frames": True}, "got True"),
])
def test_what_no_run_can_be_asked_for(bundle: Path, tmp_path: Path, given: dict[str, Any], told: str) -> None:
    (tmp_path / "results.jsonl").write_text("an earlier run")
    with pytest.raises(InputError, match=told):
        run_video(load(bundle), Pictures(), tmp_path, overwrite=True, **given)
    assert (tmp_path / "results.jsonl").read_text() == "an earlier run"
    with pytest.raises(InputError, match=told):
        next(load(bundle).track(demo_clip(), **given))


KEPT = """
import sys, stmask_deploy
from stmask_deploy.pretrained import demo_clip
results = stmask_deploy.load(backend=sys.argv[1], threads=1).track(demo_clip(), mode="throughput")
for result in results:
    {left}
"""


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize(("left", "code"), [("break", 0), ("raise SystemExit(3)", 3)])
def test_a_program_that_keeps_an_iterator_ends_as_it_wants(backend: str, left: str, code: int) -> None:
    done = subprocess.run([sys.executable, "-c", KEPT.format(left=left), backend], capture_output=True, text=True,
                          timeout=60)
    assert (done.returncode, done.stderr) == (code, "")
