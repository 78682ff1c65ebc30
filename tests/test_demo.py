"""The command behind `make demo`."""
from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from stmask_deploy import demo
from stmask_deploy.errors import InputError, StmaskError
from stmask_deploy.picture_file import read_picture
from stmask_deploy.synthetic.video import write_video


@pytest.mark.slow
def test_the_whole_path_where_it_ran_before(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for folder in ("bundle", "results"):
        (tmp_path / "demo" / folder).mkdir(parents=True)
    (tmp_path / "demo" / "bundle" / "stmask.json").write_text("{}")
    (tmp_path / "demo" / "results" / "results.jsonl").write_text("left from an earlier run")
    done = CliRunner().invoke(demo.main, [str(tmp_path / "demo")])
    assert done.exit_code == 0, done.output
    lines = [json.loads(line) for line in (tmp_path / "demo" / "results" / "results.jsonl").read_text().splitlines()]
    frames = [line for line in lines if line["type"] == "frame"]
    assert len(frames) == 96
    origins = {instance["origin"] for frame in frames for instance in frame["instances"]}
    assert origins == {"detected", "propagated"}
    sheet = cv2.imread(str(tmp_path / "demo" / "pictures.png"))
    assert sheet is not None and sheet.shape == (2 * 360, 3 * 640, 3)
    assert str(tmp_path / "demo" / "pictures.png") in done.output
    assert "all classes" in capfd.readouterr().out, "the scores are shown"


@pytest.mark.parametrize("name", ["sheet", os.fsdecode(b"not\xfftext")])
def test_contact_sheet_takes_evenly_spaced_frames(tmp_path: Path, name: str) -> None:
    greys = np.linspace(20, 220, 11).astype(np.uint8)
    write_video(tmp_path / "clip.mp4", [np.full((64, 96, 3), grey, np.uint8) for grey in greys])
    demo.write_contact_sheet(tmp_path / f"{name}.png", tmp_path / "clip.mp4")
    sheet = read_picture(tmp_path / f"{name}.png")
    assert sheet is not None
    shown = [int(sheet[32 + 64 * row, 48 + 96 * column].mean()) for row in range(2) for column in range(3)]
    assert np.abs(np.array(shown) - greys[::2]).max() <= 4


def test_folders_with_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "d:emo").mkdir()
    monkeypatch.chdir(tmp_path)
    write_video(Path("d:emo") / "clip.mp4", [np.full((64, 96, 3), 90, np.uint8)] * 6)
    demo.write_contact_sheet(Path("d:emo/sheet.png"), Path("d:emo/clip.mp4"))
    assert Path("d:emo/sheet.png").exists()


def test_a_failing_command_is_named() -> None:
    with pytest.raises(StmaskError, match="stmask-run ended with exit code 2"):
        demo.run_command("stmask-run", "--no-such-option")


def test_a_missing_command_is_named() -> None:
    with pytest.raises(InputError, match="stmask-nothing is not installed"):
        demo.run_command("stmask-nothing")
