"""`stmask-run` as a user meets it: a process, its files, its exit code and what it prints."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from run_commands import call, write_clip
from tiny_bundles import save_pictures, write_bundle
from without_torch import RUN_WITHOUT_TORCH

from stmask_deploy.evaluation.evaluate import SHOWN_SCORE
from stmask_deploy.runtime.cli import main
from stmask_deploy.runtime.frame_source import FrameSource
from stmask_deploy.runtime.model import Model
from stmask_deploy.runtime.options import RunOptions
from stmask_deploy.runtime.results_jsonl import read_results
from stmask_deploy.runtime.run import DRAW_THRESHOLD


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "street.mp4", 8)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_run_without_torch_and_onnx(bundle: Path, clip: Path, tmp_path: Path, backend: str) -> None:
    done = subprocess.run([sys.executable, "-c", RUN_WITHOUT_TORCH, clip, "-m", bundle, "--backend", backend],
                          cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr.count("\n")) == (0, 1), done.stderr
    assert "f32" in done.stderr and "CPU" in done.stderr
    assert done.stdout.startswith("8 frames in ") and "3 identities" in done.stdout
    out = tmp_path / "runs" / "street"
    assert done.stdout.splitlines()[1:] == [f"runs/street/{name}" for name in
                                            ("results.jsonl", "results.json", "video.mp4")]
    assert len(read_results(out / "results.jsonl").frames) == 8
    assert len(json.loads((out / "results.json").read_text())) == 3


def test_options_reach_the_run(bundle: Path, clip: Path, tmp_path: Path) -> None:
    result = call(clip, "-m", bundle, "-o", tmp_path, "--no-video", "--tracker", "paper", "--alpha", 0.5, "--conf", 0.1,
                  "--nms", "per-class", "--nms-iou", 0.6, "--top-k", 50, "--max-age", 5, "--retire-after", 20,
                  "--max-frames", 3, "--score-decay", 0.9, "--max-detections", 7, "--detect-every", 2,
                  "--embedding-momentum", 0.5, "--max-cover", 0.8)
    assert result.exit_code == 0, result.output
    assert "objects not detected for more than 20 key frames are forgotten" in result.stderr
    found = read_results(tmp_path / "results.jsonl")
    assert len(found.frames) == 3
    assert found.header.options == {
        "score_threshold": 0.1, "nms": "per-class", "nms_iou": 0.6, "top_k": 50, "max_detections": 7,
        "tracker": "paper", "alpha": 0.5, "beta": 1.0, "epsilon": 0.7, "embedding_momentum": 0.5, "max_cover": 0.8,
        "score_decay": 0.9, "max_age_shown": 5, "memory": "bounded", "retire_after": 20, "detect_every": 2}


@pytest.mark.parametrize("mode", ["latency", "throughput"])
def test_the_mode_reaches_the_run(bundle: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
                                  ) -> None:
    given: list[str] = []
    track = Model.track_frames
    monkeypatch.setattr(Model, "track_frames", lambda model, *args, **options: (given.append(options["mode"]), track(
        model, *args, **options))[1])
    assert call(clip, "-m", bundle, "-o", tmp_path, "--no-video", "--mode", mode).exit_code == 0
    assert given == [mode]


def test_defaults_are_those_of_the_api() -> None:
    own = {option.name: option.default for option in main.params}
    options = RunOptions()
    for name in ("nms", "nms_iou", "top_k", "max_detections", "detect_every"):
        assert own[name] == getattr(options, name), name
    assert own["draw_conf"] == DRAW_THRESHOLD == SHOWN_SCORE  # what is seen is what is judged


def test_what_scores_less_than_asked_is_not_drawn(bundle: Path, tmp_path: Path) -> None:
    photo = save_pictures(tmp_path / "photos", [100]) / "0.png"
    for number, is_drawn in (("1", False), ("0.05", True)):
        folder = tmp_path / number
        assert call(photo, "-m", bundle, "-o", folder, "--draw-conf", number).exit_code == 0
        assert np.array_equal(cv2.imread(str(folder / "frame.png")), cv2.imread(str(photo))) != is_drawn
        assert len(read_results(folder / "results.jsonl").frames[0]["instances"]) == 3


def test_limits_of_a_camera_are_told(bundle: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FrameSource, "is_live", True)
    result = call(clip, "-m", bundle, "-o", tmp_path, "--no-video")
    assert result.exit_code == 0, result.output
    assert "bounded memory: " in result.stderr and "no results.json for a live source" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["results.jsonl"]


def test_no_temporal_is_the_frame_tracker(bundle: Path, clip: Path, tmp_path: Path) -> None:
    assert call(clip, "-m", bundle, "-o", tmp_path, "--no-temporal").exit_code == 0
    assert read_results(tmp_path / "results.jsonl").header.options["tracker"] == "frame"


@pytest.mark.parametrize(("args", "code", "told"), [
    (["--no-temporal", "--tracker", "paper"], 2, "exclude each other"),
    (["--device", "gpu"], 2, "gpu belongs to backend openvino"),
    (["--precision", "bf16"], 2, "use backend openvino"),
    (["--conf", "0.01"], 2, "--candidate-threshold 0.01"),
    (["--conf", "7"], 2, "score_threshold must be in 0..1"),
    (["--image-fps", "-1"], 2, "image_fps"),
    (["--nms", "soft"], 2, "cross-class"),
    (["--threads", "0"], 2, "--threads"),
])
def test_wrong_options_end_with_one_line(bundle: Path, clip: Path, tmp_path: Path, args: list[str], code: int,
                                         told: str) -> None:
    result = call(clip, "-m", bundle, "-o", tmp_path / "out", *args)
    assert result.exit_code == code
    assert told in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_missing_device_is_exit_code_5(bundle: Path, clip: Path, tmp_path: Path) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has CUDA")
    result = call(clip, "-m", bundle, "-o", tmp_path / "out", "--device", "cuda")
    assert (result.exit_code, result.stderr.count("\n")) == (5, 1)
    assert "available: " in result.stderr


def test_a_missing_backend_is_exit_code_5(bundle: Path, clip: Path, tmp_path: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    result = call(clip, "-m", bundle, "-o", tmp_path / "out", "--backend", "openvino")
    assert result.exit_code == 5 and "install stmask-deploy[openvino]" in result.stderr


def test_bad_sources_and_bundles_are_exit_code_2(bundle: Path, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "noise.mp4").write_bytes(b"noise" * 100)
    for source, model in ((tmp_path / "nothing.mp4", bundle), (tmp_path / "empty", bundle),
                          (tmp_path / "noise.mp4", bundle), (clip, tmp_path / "empty"), (clip, tmp_path / "nothing")):
        result = call(source, "-m", model, "-o", tmp_path / "out")
        assert result.exit_code == 2, (source, model, result.output)
        assert result.stderr.count("\n") == 1 and result.stderr.startswith("error: ")


def test_graphs_of_two_exports_are_exit_code_2(clip: Path, tmp_path: Path) -> None:
    folder, other = write_bundle(tmp_path / "one"), write_bundle(tmp_path / "two", export_id="89ef")
    (other / "temporal.onnx").replace(folder / "temporal.onnx")
    result = call(clip, "-m", folder, "-o", tmp_path / "out")
    assert result.exit_code == 2 and "files of two exports are mixed" in result.stderr


def test_unwritable_output_is_exit_code_4(bundle: Path, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        result = call(clip, "-m", bundle, "-o", folder)
        assert (result.exit_code, result.stderr.count("\n")) == (4, 1)
    (tmp_path / "results.json").write_text("precious")
    result = call(clip, "-m", bundle, "-o", tmp_path)
    assert result.exit_code == 4 and "--overwrite" in result.stderr
    assert (tmp_path / "results.json").read_text() == "precious"
    assert call(clip, "-m", bundle, "-o", tmp_path, "--overwrite").exit_code == 0


def test_damaged_input_is_exit_code_3(bundle: Path, tmp_path: Path) -> None:
    folder = save_pictures(tmp_path / "clip", [100] * 3)
    (folder / "1.png").write_bytes(b"not a picture")
    result = call(folder, "-m", bundle, "-o", tmp_path / "out")
    assert result.exit_code == 3
    assert "damaged: 2 frames read, 1 unreadable file" in result.stderr
    assert (tmp_path / "out" / "results.json").exists()


def test_a_single_frame_is_told_as_one(bundle: Path, clip: Path, tmp_path: Path) -> None:
    result = call(clip, "-m", bundle, "-o", tmp_path / "out", "--no-video", "--max-frames", 1)
    assert result.stdout.startswith("1 frame in ")


def test_lost_candidates_are_told(clip: Path, tmp_path: Path) -> None:
    result = call(clip, "-m", write_bundle(tmp_path / "bundle", count=10), "-o", tmp_path / "out", "--no-video")
    assert result.exit_code == 0
    assert "32 candidates did not fit" in result.stderr and "--max-candidates" in result.stderr


def test_help_has_examples_and_exit_codes() -> None:
    told = call("--help").output
    assert "stmask-run clip.mp4 -m model_stmask" in told and "130 interrupted" in told
    assert call("--version").output.startswith("stmask-run, version")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_run_whose_messages_cannot_be_written(bundle: Path, clip: Path, tmp_path: Path, stream: str) -> None:
    with open("/dev/full", "w") as full:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: full}
        done = subprocess.run([sys.executable, "-c", RUN_WITHOUT_TORCH, clip, "-m", bundle, "-o", tmp_path], text=True,
                              timeout=120, **streams)
    assert done.returncode == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json", "results.jsonl", "video.mp4"]
    if stream == "stdout":
        assert done.stderr.splitlines()[1:] == [
            "error: messages cannot be written (No space left on device); the files are complete"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
@pytest.mark.parametrize("count", [1, 2])
def test_what_was_wrong_is_told_although_the_summary_cannot_be(bundle: Path, tmp_path: Path, count: int) -> None:
    folder = save_pictures(tmp_path / "clip", [100, 110])
    (folder / "1.png").write_bytes(b"not a picture")
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", RUN_WITHOUT_TORCH, *[folder] * count, "-m", bundle, "-o",
                               tmp_path / "out"], text=True, timeout=120, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 3
    assert done.stderr.count("the input is damaged: 1 frame read, 1 unreadable file") == count


def test_a_reader_that_has_gone(bundle: Path, clip: Path, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-c", RUN_WITHOUT_TORCH, clip, "-m", bundle, "-o", tmp_path], text=True,
                          timeout=120, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert done.returncode == 4
    assert done.stderr.splitlines()[1:] == ["error: messages cannot be written (Broken pipe); the files are complete"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results.json", "results.jsonl", "video.mp4"]
