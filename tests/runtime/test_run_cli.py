"""`stmask-run` as a user meets it: a process, its files, its exit code and what it prints."""
from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import av
import pytest
from click.testing import CliRunner, Result
from tiny_bundles import picture, save_pictures, write_bundle
from without_torch import RUN_WITHOUT_TORCH

from stmask_deploy.errors import StmaskError
from stmask_deploy.runtime.cli import main
from stmask_deploy.runtime.results_jsonl import read_results


def write_clip(path: Path, num_frames: int) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 128, 80, "yuv420p"
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(picture(100 + index % 50), format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "street.mp4", 8)


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "long.mp4", 3000)


def call(*args: Any) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


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


def test_ctrl_c_leaves_readable_results(bundle: Path, long_clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", RUN_WITHOUT_TORCH, long_clip, "-m", bundle, "-o", out],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    results = out / "results.jsonl"
    deadline = time.monotonic() + 180
    while not (results.exists() and results.read_bytes().count(b"\n") > 5) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=180)
    assert process.returncode == 130, stderr
    assert "interrupted" in stderr and "Traceback" not in stderr
    found = read_results(results)
    assert 5 <= len(found.frames) < 3000
    assert found.end is not None and found.end["interrupted"] and found.end["frames"] == len(found.frames)
    assert f"{len(found.frames)} frames" in stdout
    with av.open(str(out / "video.mp4")) as video:
        assert len(list(video.decode(video=0))) == len(found.frames)


# A run that tells where it is, so that Ctrl-C can come at a known moment.
TELLING = """
import atexit, os, threading, time
from stmask_deploy.runtime.interrupt import InterruptFlag
from stmask_deploy.runtime.run_writer import RunWriter
note, write = InterruptFlag._note, RunWriter.write
def tell(word):
    os.write(1, word.encode() + bytes([10]))
def tell_note(*args):
    note(*args)
    tell("noted")
def write_slowly(*args):
    tell("writing")
    time.sleep(0.05)
    write(*args)
def hold(*args):
    everyone.wait()  # no run is still writing its header
    tell("holding")
    while True:
        time.sleep(0.01)
InterruptFlag._note = tell_note
"""
ENDING = f"""{TELLING}
RunWriter.write = write_slowly
atexit.register(lambda: (tell("ending"), time.sleep(0.3)))
{RUN_WITHOUT_TORCH}"""


def holding(num_runs: int) -> str:
    """A run, or several, none of which ever gets past its first frame; told when all have come to it."""
    return f"{TELLING}\neveryone = threading.Barrier({num_runs})\nRunWriter.write = hold\n{RUN_WITHOUT_TORCH}"


def interrupted(code: str, *arguments: object, stages: Sequence[str]) -> tuple[int, list[str]]:
    """Run `code`, with Ctrl-C whenever it has told the next of `stages`; gives its exit code and standard error."""
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for stage in stages:
        for line in process.stdout:
            if line.strip() == stage:
                break
        process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=180)
    return process.returncode, stderr.splitlines()


@pytest.mark.parametrize("options", [("--mode", "latency"), ("--mode", "throughput"), ("--parallel", 2)])
def test_a_second_ctrl_c_waits_for_nothing(bundle: Path, long_clip: Path, tmp_path: Path,
                                           options: tuple[Any, ...]) -> None:
    clips = [long_clip] * (2 if "--parallel" in options else 1)
    code, told = interrupted(holding(len(clips)), *clips, "-m", bundle, "-o", tmp_path / "out", *options,
                             stages=["holding", "noted"])
    assert (code, told[1:]) == (130, ["interrupted"])
    results = list((tmp_path / "out").rglob("results.jsonl"))
    assert len(results) == len(clips)
    assert all(read_results(path).end is None for path in results)  # cut short, and readable


def test_ctrl_c_while_the_process_ends_is_not_heard(bundle: Path, long_clip: Path, tmp_path: Path) -> None:
    code, told = interrupted(ENDING, long_clip, "-m", bundle, "-o", tmp_path / "out", stages=["writing", "ending"])
    assert (code, told[1:]) == (130, ["interrupted: the results hold every frame up to here"])
    end = read_results(tmp_path / "out" / "results.jsonl").end
    assert end is not None and end["interrupted"] is True


def test_options_reach_the_run(bundle: Path, clip: Path, tmp_path: Path) -> None:
    result = call(clip, "-m", bundle, "-o", tmp_path, "--no-video", "--tracker", "paper", "--alpha", 0.5, "--conf", 0.1,
                  "--nms", "per-class", "--nms-iou", 0.6, "--top-k", 50, "--max-age", 5, "--retire-after", 20,
                  "--max-frames", 3, "--score-decay", 0.9, "--max-detections", 7, "--detect-every", 2,
                  "--embedding-momentum", 0.5, "--max-cover", 0.8)
    assert result.exit_code == 0, result.output
    assert "objects not detected for 20 key frames are forgotten" in result.stderr
    found = read_results(tmp_path / "results.jsonl")
    assert len(found.frames) == 3
    assert found.header.options == {
        "score_threshold": 0.1, "nms": "per-class", "nms_iou": 0.6, "top_k": 50, "max_detections": 7,
        "tracker": "paper", "alpha": 0.5, "beta": 1.0, "epsilon": 0.7, "embedding_momentum": 0.5, "max_cover": 0.8,
        "score_decay": 0.9, "max_age_shown": 5, "memory": "bounded", "retire_after": 20, "detect_every": 2}


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


@pytest.mark.parametrize("options", [(), ("--parallel", 2), ("--parallel", 2, "--mode", "latency")])
def test_several_sources_have_the_results_of_single_runs(bundle: Path, clip: Path, tmp_path: Path,
                                                         options: tuple[Any, ...]) -> None:
    other = write_clip(tmp_path / "park.mp4", 5)
    for source, name in ((clip, "street"), (other, "park")):
        assert call(source, "-m", bundle, "-o", tmp_path / "alone" / name).exit_code == 0
    result = call(clip, other, "-m", bundle, "-o", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    assert f"{clip}: 8 frames in" in result.stdout and f"{other}: 5 frames in" in result.stdout
    assert result.stderr.count("ONNX Runtime") == 1  # one model
    for name in ("street", "park"):
        files = sorted(path.name for path in (tmp_path / "out" / name).iterdir())
        assert files == ["results.json", "results.jsonl", "video.mp4"]
        for file in files:
            assert (tmp_path / "out" / name / file).read_bytes() == (tmp_path / "alone" / name / file).read_bytes()


def test_a_source_is_never_replaced_by_its_results(bundle: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "video.mp4", 3)
    pictures = save_pictures(tmp_path / "pictures", [100, 110])
    (pictures / "1.png").rename(pictures / "frame.png")
    for source, folder in ((clip, tmp_path), (pictures, pictures), (pictures / "frame.png", pictures)):
        before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        result = call(source, "-m", bundle, "-o", folder, "--overwrite")
        assert result.exit_code == 2 and "is an input of this run and would be replaced; use another" in result.stderr
        assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_no_source_is_replaced_by_the_results_of_another(bundle: Path, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call(clip, "-m", bundle, "-o", out / "street").exit_code == 0
    earlier = out / "street" / "video.mp4"
    before = earlier.read_bytes()
    result = call(clip, earlier, "-m", bundle, "-o", out, "--overwrite")
    assert result.exit_code == 2 and f"{earlier} is an input of this run and would be replaced" in result.stderr
    assert earlier.read_bytes() == before and (out / "video" / "results.json").exists()


def test_sources_of_one_name_have_folders_of_their_own(bundle: Path, clip: Path, tmp_path: Path) -> None:
    assert call(clip, clip, clip, "-m", bundle, "-o", tmp_path, "--no-video", "--max-frames", 1).exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["street", "street-2", "street-3"]


def test_a_source_that_fails_leaves_the_others_their_results(bundle: Path, clip: Path, tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    from stmask_deploy.runtime.run_writer import RunWriter

    write = RunWriter.write

    def fail_for_the_bug(writer: RunWriter, frame: Any, result: Any) -> None:
        if writer._source.name == "bug.mp4":
            raise KeyError("a bug")
        if writer._source.name == "half.mp4" and writer.num_frames == 1:
            raise StmaskError("no more")
        write(writer, frame, result)

    monkeypatch.setattr(RunWriter, "write", fail_for_the_bug)
    bug, half, last = (write_clip(tmp_path / name, 3) for name in ("bug.mp4", "half.mp4", "last.mp4"))
    taken = tmp_path / "out" / "street-2"
    taken.mkdir(parents=True)
    (taken / "results.json").write_text("precious")
    result = call(clip, clip, bug, tmp_path / "nothing.mp4", half, last, "-m", bundle, "-o", tmp_path / "out",
                  "--no-video")
    assert result.exit_code == 4  # of the first that failed
    told = result.stderr.splitlines()
    assert told[1].startswith(f"error: {clip}: ") and "--overwrite" in told[1]
    assert told[2] == f"error: {bug}: KeyError: 'a bug'"
    assert told[3].startswith(f"error: {tmp_path / 'nothing.mp4'} does not exist")
    kept = tmp_path / "out" / "half" / "results.jsonl"
    assert told[4] == f"error: {half}: no more; 1 frame before that in {kept}"
    assert told[5:] == [f"4 of 6 sources failed: {clip}, {bug}, {tmp_path / 'nothing.mp4'}, {half}"]
    assert (taken / "results.json").read_text() == "precious"
    for name, frames in (("street", 8), ("last", 3)):
        results = read_results(tmp_path / "out" / name / "results.jsonl")
        assert len(results.frames) == frames and results.end is not None


def test_several_sources_and_a_bundle_that_does_not_open(clip: Path, tmp_path: Path) -> None:
    result = call(clip, clip, "-m", tmp_path / "nothing", "-o", tmp_path / "out")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("names", "options", "is_refused"), [
    (["98", "{clip}"], (), True), (["{clip}", "98", "99", "{clip}"], ("--parallel", 2), True),
    (["{clip}", "98"], (), False), (["98", "{clip}"], ("--parallel", 2), False),
    (["98", "{clip}"], ("--max-frames", 1), False), (["98", "{clip}", "{clip}"], ("--parallel", 2), False),
])
def test_a_camera_that_would_keep_others_waiting_is_refused(bundle: Path, clip: Path, tmp_path: Path, names: list[str],
                                                            options: tuple[Any, ...], is_refused: bool) -> None:
    result = call(*(name.format(clip=clip) for name in names), "-m", bundle, "-o", tmp_path / "out", "--no-video",
                  *options)
    if is_refused:  # before anything is opened
        assert result.exit_code == 2 and "camera 98 never ends, so the sources after it would never" in result.stderr
        assert f"--parallel {len(names)}" in result.stderr and not (tmp_path / "out").exists()
    else:
        assert result.exit_code == 5 and "camera 98" in result.stderr  # there is none
        assert (tmp_path / "out" / "street" / "results.json").exists()


def test_cameras_at_the_same_time(bundle: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stmask_deploy.runtime.frame_source import FrameSource

    monkeypatch.setattr(FrameSource, "is_live", True)
    result = call(clip, clip, "-m", bundle, "-o", tmp_path, "--parallel", 2)
    assert result.exit_code == 0, result.output
    for note in ("bounded memory", "no results.json"):
        assert result.stderr.count(f"{clip}: {note}") == 2
    for name in ("street", "street-2"):
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == ["results.jsonl", "video.mp4"]


def test_sources_that_cannot_be_prepared_are_closed(bundle: Path, clip: Path, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    from stmask_deploy.runtime.video_source import VideoSource

    class Source(VideoSource):
        open_ones: ClassVar[set[object]] = set()
        is_live = True

        def __init__(self, path: Path) -> None:
            super().__init__(path)
            self.open_ones.add(self)

        def close(self) -> None:
            super().close()
            self.open_ones.discard(self)

    def gone(*_: object, **__: object) -> None:
        assert len(Source.open_ones) == 1
        raise BrokenPipeError

    monkeypatch.setattr("stmask_deploy.runtime.sources.VideoSource", Source)
    def told(*_: object) -> int:
        assert not Source.open_ones
        return 7

    monkeypatch.setattr("stmask_deploy.runtime.cli.tell_limits", gone)
    monkeypatch.setattr("stmask_deploy.runtime.cli.tell_failure", told)
    assert call(clip, clip, "-m", bundle, "-o", tmp_path, "--parallel", 2).exit_code == 7


def test_more_at_the_same_time_than_there_are(bundle: Path, clip: Path, tmp_path: Path) -> None:
    result = call(clip, "-m", bundle, "-o", tmp_path / "out", "--parallel", 2)
    assert (result.exit_code, result.stderr) == (2, "error: --parallel 2 needs at least 2 sources, given: 1\n")


def test_ctrl_c_completes_all_that_run(bundle: Path, long_clip: Path, tmp_path: Path) -> None:
    clips = [long_clip] * 3
    process = subprocess.Popen([sys.executable, "-c", RUN_WITHOUT_TORCH, *clips, "-m", bundle, "-o", tmp_path / "out",
                                "--parallel", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    results = [tmp_path / "out" / name / "results.jsonl" for name in ("long", "long-2")]
    deadline = time.monotonic() + 180
    while not all(path.exists() and path.read_bytes().count(b"\n") > 3 for path in results):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=180)
    assert process.returncode == 130, told
    assert told.count("interrupted: ") == 2 and "Traceback" not in told
    for path in results:
        end = read_results(path).end
        assert end is not None and end["interrupted"] is True
    assert not (tmp_path / "out" / "long-3").exists()


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
