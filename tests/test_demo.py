"""The command behind `make demo`."""
from __future__ import annotations

import json
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from stmask_deploy import demo
from stmask_deploy.errors import InputError, StmaskError
from stmask_deploy.scenes import render_clip


@pytest.mark.slow
def test_the_whole_path_where_it_ran_before(tmp_path: Path) -> None:
    for folder in ("bundle", "results"):
        (tmp_path / "demo" / folder).mkdir(parents=True)
    (tmp_path / "demo" / "bundle" / "stmask.json").write_text("{}")
    (tmp_path / "demo" / "results" / "results.jsonl").write_text("left from an earlier run")
    done = CliRunner().invoke(demo.main, [str(tmp_path / "demo")])
    assert done.exit_code == 0, done.output
    assert "UNTRAINED" in done.output
    lines = [json.loads(line) for line in (tmp_path / "demo" / "results" / "results.jsonl").read_text().splitlines()]
    frames = [line for line in lines if line["type"] == "frame"]
    assert len(frames) == demo.NUM_FRAMES
    counts = [len(frame["instances"]) for frame in frames]
    assert min(counts) >= 1 and np.mean(counts) < 40
    origins = {instance["origin"] for frame in frames for instance in frame["instances"]}
    assert origins == {"detected", "propagated"}
    sheet = cv2.imread(str(tmp_path / "demo" / "pictures.png"))
    assert sheet is not None and sheet.shape == (2 * demo.CLIP_HW[0], 3 * demo.CLIP_HW[1], 3)


def test_clip_reads_back(tmp_path: Path) -> None:
    frames = list(render_clip(5, size=(180, 320)))
    demo.write_clip(tmp_path / "clip.mp4", frames)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        back = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    assert len(back) == 5
    assert np.abs(back[2].astype(int) - frames[2]).mean() < 6


def test_a_failing_command_is_named() -> None:
    with pytest.raises(StmaskError, match="stmask-run ended with exit code 2"):
        demo.run_command("stmask-run", "--no-such-option")


def test_a_missing_command_is_named() -> None:
    with pytest.raises(InputError, match="stmask-nothing is not installed"):
        demo.run_command("stmask-nothing")
