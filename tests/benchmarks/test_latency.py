"""The script on bundles built by hand, and on one small real network."""
from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from latency import SCHEMA, main, pair, split
from tiny_bundles import write_bundle

from stmask_deploy.pretrained import demo_checkpoint, demo_clip
from stmask_deploy.runtime.video_writer import VideoWriter
from stmask_deploy.scenes import render_clip

QUICK = ["--threads", "1", "--warmup", "1", "--frames", "4", "--rounds", "2"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with VideoWriter(path) as writer:
        for image in render_clip(7, (90, 160)):
            writer.write(image)
    return path


def run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


def test_measures_what_can_run_and_lists_what_cannot(tmp_path: Path, clip: Path) -> None:
    bundle, out = write_bundle(tmp_path / "bundle"), tmp_path / "out.json"
    result = run("--bundle", bundle, "--video", clip, "--rows", "torch:f32,onnxruntime:f32,openvino:bf16", *QUICK,
                 "--json", out)
    assert result.exit_code == 0, result.output
    report = json.loads(out.read_text())
    assert report["schema"] == SCHEMA
    assert report["video"] == {"name": "clip.mp4", "width": 160, "height": 90}
    assert {"machine", "versions", "date", "threads", "conf"} <= report.keys()
    torch_row, ort_row, bf16_row = report["bundles"][0]["rows"]
    assert (ort_row["row"], ort_row["frames"], ort_row["shown"]["p50"]) == ("onnxruntime:f32", 4, 3)
    assert "--checkpoint" in torch_row["not_available"]
    assert "--openvino makes it" in bf16_row["not_available"]
    assert "| frame graph |" in result.stdout
    assert "openvino:bf16: not available: " in result.stdout
    assert str(tmp_path) not in out.read_text().replace(bf16_row["not_available"], "")


def test_graphs_only(tmp_path: Path, clip: Path) -> None:
    result = run("--bundle", write_bundle(tmp_path / "bundle"), "--video", clip, "--rows", "onnxruntime:f32", *QUICK,
                 "--graphs-only")
    assert result.exit_code == 0, result.output
    assert "| temporal graph |" in result.stdout
    assert "decode" not in result.stdout


@pytest.mark.parametrize("args, told", [
    ([], "give at least one --bundle or --checkpoint"),
    (["--bundle", "nowhere"], "nowhere does not exist"),
    (["--checkpoint", "nowhere.pth"], "nowhere.pth cannot be read"),
    (["--bundle", "{bundle}", "--rows", "torch"], "'torch' is not known"),
    (["--bundle", "{bundle}", "--video", "{clip}", "--frames", "50"], "has 7 frames and 65 are needed"),
])
def test_bad_input(args: list[str], told: str, tmp_path: Path, clip: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    result = run(*(arg.format(bundle=bundle, clip=clip) for arg in args))
    assert result.exit_code == 2
    assert told in result.output


def test_a_process_that_dies_is_told(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import row_process

    monkeypatch.setattr(row_process, "serve", _die)
    result = run("--bundle", write_bundle(tmp_path / "bundle"), "--video", clip, "--rows", "onnxruntime:f32", *QUICK)
    assert result.exit_code == 0, result.output
    assert "onnxruntime:f32: not available: its process ended with exit code 7" in result.stdout


def _die(*_args: object) -> None:
    raise SystemExit(7)


def test_pairs_go_by_what_was_exported(tmp_path: Path) -> None:
    import hashlib

    checkpoint = tmp_path / "b.pth"
    checkpoint.write_bytes(b"weights")
    digest = hashlib.sha256(b"weights").hexdigest()
    a = write_bundle(tmp_path / "a")
    b = write_bundle(tmp_path / "b", checkpoint_sha256=digest)
    assert pair([a, b], [checkpoint], tmp_path) == [(a, None), (b, checkpoint)]


@pytest.mark.parametrize("frames, rounds, counts", [(30, 3, [10, 10, 10]), (5, 3, [2, 2, 1]), (2, 3, [1, 1])])
def test_rounds(frames: int, rounds: int, counts: list[int]) -> None:
    assert split(frames, rounds) == counts


@pytest.mark.slow
def test_pytorch_beside_an_exported_checkpoint(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    result = run("--checkpoint", demo_checkpoint(), "--video", demo_clip(),
                 "--rows", "torch:f32,onnxruntime:f32,openvino:f32", *QUICK, "--json", out)
    assert result.exit_code == 0, result.output
    rows = json.loads(out.read_text())["bundles"][0]["rows"]
    assert [row["row"] for row in rows] == ["torch:f32", "onnxruntime:f32", "openvino:f32"]
    assert all(row["speedup"]["frame"] > 0 for row in rows)
    # The same frames, the same model: the same objects.
    assert rows[0]["shown"] == rows[1]["shown"] == rows[2]["shown"]
    assert rows[0]["shown"]["p50"] > 0
