"""A record answers as the graphs did, after the times asked for; frames in memory are those of the video."""
from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import host_work
import numpy as np
import pytest
from click.testing import CliRunner
from held_source import hold
from host_work import ROWS, main, run, summary
from replayed import Record

from stmask_deploy.bench.bundle_run import FrameClock
from stmask_deploy.errors import InputError, StmaskError
from stmask_deploy.pretrained import demo_bundle, demo_clip
from stmask_deploy.runtime.encoder_process import EncoderProcess
from stmask_deploy.runtime.loading import Bundle, open_bundle
from stmask_deploy.runtime.model import Model
from stmask_deploy.runtime.options import RunOptions
from stmask_deploy.runtime.preprocess import preprocess
from stmask_deploy.runtime.sources import open_source

FRAMES = 12
WAITS = {"frame": 0.02, "instances": 0.004, "temporal": 0.006}
NO_WAITS = dict.fromkeys(WAITS, 0.0)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return open_bundle(demo_bundle(), threads=1)


def results(folder: Path) -> list[Mapping[str, Any]]:
    """The frames' lines."""
    lines = [json.loads(line) for line in (folder / "results" / "results.jsonl").read_text().splitlines()]
    return [line for line in lines if line["type"] == "frame"]


@pytest.mark.parametrize("memory", ["exact", "bounded"])
def test_a_record_answers_as_the_graphs_did(bundle: Bundle, tmp_path: Path, memory: str) -> None:
    clock, options = FrameClock(), RunOptions(memory=memory)
    held = hold(demo_clip(), FRAMES)
    record = Record(bundle)
    found = []
    models = {"plain": Model(bundle, options, clock), "recording": Model(record.recording(), options, clock),
              "replaying": Model(record.replaying(NO_WAITS), options, clock)}
    for name, model in models.items():
        for mode in ("latency", "throughput") if name == "replaying" else ("latency",):
            run(model, held.again(), FRAMES, mode, EncoderProcess(), tmp_path / name, clock)
            found.append(results(tmp_path / name))
    assert len(found[0]) == FRAMES and sum(len(line["instances"]) for line in found[0]) > FRAMES
    assert all(lines == found[0] for lines in found[1:])


def test_times_are_waited_for_one_at_a_time(bundle: Bundle, tmp_path: Path) -> None:
    clock, options = FrameClock(), RunOptions()
    record, held = Record(bundle), hold(demo_clip(), FRAMES)
    run(Model(record.recording(), options, clock), held, FRAMES, "latency", EncoderProcess(), tmp_path, clock)
    model = Model(record.replaying(WAITS), options, clock)
    alone = run(model, held.again(), FRAMES, "latency", EncoderProcess(), tmp_path, clock, warmup=2)
    assert len(alone["seconds"]) == len(alone["stages"]) == FRAMES - 2
    for stages in alone["stages"]:
        for role, stage in (("frame", "frame_graph"), ("instances", "instance_graph"), ("temporal", "temporal_graph")):
            assert WAITS[role] * 0.95 <= stages[stage]
    assert min(alone["seconds"]) >= sum(WAITS.values()) * 0.95
    overlapped = run(model, held.again(), FRAMES, "throughput", EncoderProcess(), tmp_path, clock)
    # Two threads ask for the frame graph, which answers one at a time.
    assert sum(overlapped["seconds"]) >= 0.95 * FRAMES * WAITS["frame"]
    model = Model(record.replaying(WAITS, one_at_a_time=True), options, clock)
    crowded = run(model, held.again(), FRAMES, "throughput", EncoderProcess(), tmp_path, clock)
    # The first frame has nothing to propagate.
    assert sum(crowded["seconds"]) >= 0.95 * (FRAMES * sum(WAITS.values()) - WAITS["temporal"])


def test_what_was_not_recorded_is_not_made_up(bundle: Bundle, tmp_path: Path) -> None:
    clock, options = FrameClock(), RunOptions()
    record = Record(bundle)
    run(Model(record.recording(), options, clock), hold(demo_clip(), 2), 2, "latency", EncoderProcess(), tmp_path,
        clock)
    with pytest.raises(StmaskError, match="not recorded: replay the frames and options of the recording"):
        run(Model(record.replaying(NO_WAITS), options, clock), hold(demo_clip(), 3), 3, "latency", EncoderProcess(),
            tmp_path, clock)


def test_frames_in_memory_are_those_of_the_video() -> None:
    held = hold(demo_clip(), 5)
    for _ in range(2):
        again = held.again()
        with open_source(demo_clip()) as source:
            assert (again.width, again.height, again.fps, again.num_frames, again.kind, again.name) == (
                source.width, source.height, source.fps, 5, "video", source.name)
            frames = [(ours.index == frame.index, ours.time_s == frame.time_s, np.array_equal(ours.image, frame.image))
                      for ours, frame in zip(again, source, strict=False)]
        assert frames == [(True, True, True)] * 5 and again.damage.frames == 5
    with pytest.raises(InputError):
        hold(Path("no.mp4"), 5)


def test_answers_are_given_as_arrays_of_their_own(bundle: Bundle, tmp_path: Path) -> None:
    clock, options = FrameClock(), RunOptions()
    record = Record(bundle)
    run(Model(record.recording(), options, clock), hold(demo_clip(), 2), 2, "latency", EncoderProcess(), tmp_path,
        clock)
    graph = record.replaying(NO_WAITS).frame
    picture = {"frame": preprocess(next(iter(hold(demo_clip(), 1))).image, bundle.description.model)[0]}
    first, second = graph.run(picture, ["boxes"]), graph.run(picture, ["boxes"])
    first["boxes"][:] = -1
    assert list(first) == ["boxes"] and (second["boxes"] >= -0.5).all()
    assert np.array_equal(graph.run(picture, ["boxes"])["boxes"], second["boxes"])


def test_cpu_time_is_per_frame(bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FrameClock()
    monkeypatch.setattr(host_work.time, "process_time", iter([5.0, 8.0]).__next__)
    found = run(Model(bundle, RunOptions(), clock), hold(demo_clip(), 4), 4, "latency", EncoderProcess(), tmp_path,
                clock)
    assert found["cores_s"] == 0.75


def test_a_summary_has_rates_of_turns_and_medians_of_frames() -> None:
    turns = [{"seconds": [0.5, 1.5], "cores_s": 0.25, "stages": [{"tracker": 0.001}, {"tracker": 0.002, "nms": 1.0}]},
             {"seconds": [0.125, 0.125], "cores_s": 0.75, "stages": [{"tracker": 0.006}, {"tracker": 0.004}]}]
    assert summary(turns) == {"fps": [1.0, 8.0], "cores_ms": 500.0, "stages_ms": {"nms": 1000.0, "tracker": 3.0}}


def test_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "host.json"
    opened = []
    monkeypatch.setattr(host_work, "open_source", lambda video: opened.append(video) or open_source(video))
    arguments = ["--frames", "6", "--warmup", "2", "--rounds", "2", "--ms", "5,0,0", "--ms", "0,0.5,0",
                 "--json", str(path)]
    helped: list[tuple[str, bool]] = []
    monkeypatch.setattr(host_work, "run", lambda model, source, frames, mode, helper, *rest: helped.append(
        (mode, helper._process is not None)) or run(model, source, frames, mode, helper, *rest))
    for extra in ([], ["--decoded", "--overwrite"]):
        opened.clear()
        helped.clear()
        done = CliRunner().invoke(main, [*arguments, *extra], catch_exceptions=False)
        assert done.exit_code == 0 and done.output.count("\n") == 2 + 2 * len(ROWS)
        assert helped == [("latency", False), *[(row.mode, row.is_helped) for row in ROWS] * 4]  # two times, two rounds
        report = json.loads(path.read_text())
        assert [(row["ms"]["frame"], row["row"]) for row in report["rows"]] == [(ms, row.name) for ms in (5, 0)
                                                                               for row in ROWS]
        assert report["is_decoded"] == bool(extra) and len(opened) == (0 if extra else 2 * 2 * len(ROWS))
        assert all(len(row["fps"]) == 2 and min(row["fps"]) > 0 for row in report["rows"])
        assert max(report["rows"][0]["fps"]) < 200
        stages = report["rows"][0]["stages_ms"], report["rows"][len(ROWS)]["stages_ms"]
        assert stages[0]["frame_graph"] >= 4.8 and stages[1]["instance_graph"] >= 0.4
        assert stages[1]["frame_graph"] < 0.6 * stages[0]["frame_graph"]


@pytest.mark.parametrize(("arguments", "told"), [
    (["--frames", "3", "--warmup", "3"], "leaves none"),
    (["--frames", "100000"], "has only .* give fewer --frames"),
    (["no-such-bundle"], "no-such-bundle"),
    (["--ms", "3,4"], "'3,4': give three numbers"),
    (["--ms", "3,4,x"], "give three numbers"),
    (["--ms", "3,-1,0"], "not negative"),
    (["--ms", "3,inf,0"], "finite"),
    (["--ms", "3,nan,0"], "finite"),
])
def test_what_cannot_be_measured_is_told(arguments: list[str], told: str) -> None:
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code not in (0, 1) and "Traceback" not in done.output
    assert re.search(told, done.output)
