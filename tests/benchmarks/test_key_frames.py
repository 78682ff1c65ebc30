"""The table over K on two tiny clips."""
from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import key_frames
import pytest
from click.testing import CliRunner
from dataset import open_dataset
from key_frames import main

from stmask_deploy.evaluation.evaluate import evaluate
from stmask_deploy.evaluation.track_dataset import track_dataset
from stmask_deploy.runtime.frame_source import FrameSource
from stmask_deploy.runtime.model import load


def test_every_frame_is_the_plain_run_and_key_frames_differ(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = CliRunner().invoke(main, [str(data), "--every", "3", "--threads", "1", "--json", str(out)])
    assert done.exit_code == 0, done.output
    first, third = json.loads(out.read_text())["rows"]
    truth, frames = open_dataset(data)
    assert first["ap"] == evaluate(truth, track_dataset(load(threads=1), truth, frames)).ap
    assert (first["detect_every"], third["detect_every"]) == (1, 3)
    assert first["agreement"]["mean_iou"] == 100 and first["agreement"]["ap"] == 100
    assert third["agreement"]["mean_iou"] < 100
    assert first["fps"] > 0 and "| detect every | FPS | times K=1 | AP |" in done.output


def test_models_take_turns_back_and_forth_after_one_run_that_does_not_count(data: Path, tmp_path: Path,
                                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, str]] = []

    def run_video(model: str, source: FrameSource, *_: object, **__: object) -> SimpleNamespace:
        ran.append((model, source.name))
        return SimpleNamespace(seconds=float(len(ran)))

    monkeypatch.setattr(key_frames, "run_video", run_video)
    truth, frames = open_dataset(data)
    first, second = (Path(key_frames.video_name(video)).name for video in truth.videos)
    seconds = key_frames.run_all({1: "a", 3: "b"}, truth, frames, tmp_path)  # type: ignore[dict-item]
    assert ran == [("a", first), ("b", first), ("a", first), ("b", first), ("b", second), ("a", second)]
    assert seconds == {1: [3.0, 6.0], 3: [4.0, 5.0]}


@pytest.mark.parametrize("args, told", [
    (["nowhere"], "nowhere"),
    (["{data}", "--bundle", "nowhere"], "nowhere does not exist"),
    (["{data}", "--every", "0"], "0 is not in the range"),
])
def test_bad_input(args: list[str], told: str, data: Path) -> None:
    done = CliRunner().invoke(main, [arg.format(data=data) for arg in args])
    assert (told in done.output, done.exit_code) == (True, 2), done.output


def test_images_that_are_not_annotated(data: Path, tmp_path: Path) -> None:
    import shutil

    copied = tmp_path / "val"
    shutil.copytree(data, copied)
    first = next((copied / "JPEGImages").iterdir())
    shutil.copy(next(first.iterdir()), first / "99999.jpg")
    done = CliRunner().invoke(main, [str(copied), "--every", "2", "--threads", "1"])
    assert done.exit_code == 2
    assert "holds 5 images, and the annotations have 4" in done.output
