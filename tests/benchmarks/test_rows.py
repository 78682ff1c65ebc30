from __future__ import annotations

from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import rows
from rows import Job, Row, Sample, open_row
from tiny_bundles import write_bundle

from stmask_deploy.errors import InputError
from stmask_deploy.runtime.timing import STAGES
from stmask_deploy.runtime.video_writer import VideoWriter
from stmask_deploy.scenes import render_clip

NUM_FRAMES = 6


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with VideoWriter(path) as writer:
        for image in render_clip(NUM_FRAMES, (80, 128)):
            writer.write(image)
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundles") / "bundle", count=3)


def job(bundle: Path, clip: Path, row: str = "onnxruntime:f32", **changes: Any) -> Job:
    values: dict[str, Any] = {"checkpoint": None, "threads": 1, "conf": 0.05, "graphs_only": False, **changes}
    return Job(Row.parse(row), bundle, video=clip, **values)


def measure(asked: Job) -> list[Sample]:
    with open_row(asked) as (_, samples):
        return list(samples)


def test_every_stage_of_every_frame(bundle: Path, clip: Path) -> None:
    samples = measure(job(bundle, clip))
    assert len(samples) == NUM_FRAMES
    assert set(samples[-1].stages) == set(STAGES)
    assert set(samples[0].stages) == set(STAGES) - {"temporal_graph"}
    assert all(sum(sample.stages.values()) <= sample.total for sample in samples)


def test_objects_shown_and_tracked(bundle: Path, clip: Path) -> None:
    samples = measure(job(bundle, clip))
    assert [sample.shown for sample in samples] == [3] * NUM_FRAMES
    assert [sample.tracked for sample in samples] == [0] + [3] * (NUM_FRAMES - 1)


def test_the_threshold_decides_what_is_shown(bundle: Path, clip: Path) -> None:
    # Scores are 0.9, 0.8 and 0.7, times a centerness of 0.95.
    assert measure(job(bundle, clip, conf=0.7))[0].shown == 2


def test_what_is_made_on_demand_is_made_in_its_stage(bundle: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Pixels are needed by results, by drawing and by run lengths: first of all inside the stage "masks".
    import stmask_deploy.runtime.result as result

    entered: list[str] = []
    made_in: list[str] = []

    class WatchedTimer(rows.StageTimer):
        @contextmanager
        def stage(self, name: str) -> Any:
            entered.append(name)
            with super().stage(name):
                yield
            entered.pop()

    for name in ("upsample_mask", "encode_patch"):
        made = getattr(result, name)
        monkeypatch.setattr(result, name, lambda *args, made=made: (made_in.append(entered[-1]), made(*args))[1])
    monkeypatch.setattr(rows, "StageTimer", WatchedTimer)
    measure(job(bundle, clip))
    assert made_in == ["masks"] * (2 * 3 * NUM_FRAMES)


def test_graphs_only(bundle: Path, clip: Path) -> None:
    samples = measure(job(bundle, clip, graphs_only=True))
    assert len(samples) == NUM_FRAMES - 1
    assert set(samples[0].stages) == {"frame_graph", "temporal_graph"}
    assert {sample.tracked for sample in samples} == {rows.NUM_BOXES}


@pytest.mark.parametrize("graphs_only", [False, True])
def test_a_model_without_temporal_fusion(graphs_only: bool, clip: Path, tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", has_temporal=False)
    samples = measure(job(folder, clip, graphs_only=graphs_only))
    assert not any("temporal_graph" in sample.stages for sample in samples)
    assert {sample.tracked for sample in samples} == {0}


def test_a_row_says_what_it_runs_on(bundle: Path, clip: Path) -> None:
    with open_row(job(bundle, clip)) as (device, samples):
        assert "ONNX Runtime" in device and "1 thread" in device
        assert len(list(islice(samples, 2))) == 2  # the rest of the video is left


@pytest.mark.parametrize("text", ["", "torch", "tensorflow:f32", "openvino:f64", "openvino:f32:f32"])
def test_unknown_rows(text: str) -> None:
    with pytest.raises(InputError, match="is not known; give BACKEND:PRECISION"):
        Row.parse(text)


def test_a_row_reads_back() -> None:
    assert str(Row.parse("openvino:bf16")) == "openvino:bf16"


@pytest.mark.parametrize("row, told", [("torch:f32", "--checkpoint"), ("torch:bf16", "f32 only"),
                                       ("onnxruntime:bf16", "f32 only"), ("openvino:f32", "--openvino")])
def test_rows_that_cannot_run(row: str, told: str, bundle: Path, clip: Path) -> None:
    with pytest.raises(InputError, match=told), open_row(job(bundle, clip, row)):
        pass
