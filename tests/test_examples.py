"""What the documentation shows in Python: it runs, and README's snippet is the example."""
from __future__ import annotations

import dataclasses
import inspect
import re
import runpy
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import stmask_deploy
from stmask_deploy.geometry import FrameGeometry
from stmask_deploy.pretrained import demo_annotations, demo_bundle
from stmask_deploy.runtime.masks import bilinear_axes, upsample_mask
from stmask_deploy.runtime.model import Model
from stmask_deploy.runtime.options import RunOptions
from stmask_deploy.runtime.result import FrameResult
from stmask_deploy.synthetic.clips import render

REPOSITORY = Path(__file__).resolve().parent.parent
EXAMPLE = REPOSITORY / "examples" / "minimal_video.py"
GRAPHS_ALONE = REPOSITORY / "examples" / "graphs_alone.py"
SIZE = (192, 320)


def snippets(name: str) -> list[str]:
    """The Python blocks of a page."""
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    return re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def from_python() -> str:
    """The section of docs/results.md."""
    text = (REPOSITORY / "docs" / "results.md").read_text(encoding="utf-8")
    section = re.search(r"^## From Python\n(.*?)(?=^## )", text, re.MULTILINE | re.DOTALL)
    assert section is not None
    return section[1]


def run_snippet(code: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **given: Any) -> dict[str, Any]:
    """Run code in `folder` with the names that it takes as given; the names there are afterwards."""
    monkeypatch.chdir(folder)
    (folder / "snippet.py").write_text(code, encoding="utf-8")
    return runpy.run_path("snippet.py", init_globals=given)


@pytest.fixture
def pictures(tmp_path: Path) -> list[np.ndarray[Any, Any]]:
    """Three frames of a generated clip, also as the folder `video.mp4` beside which snippets run."""
    frames = list(render("val", 3, num_frames=3, size=SIZE).pictures())
    (tmp_path / "video.mp4").mkdir()
    for index, frame in enumerate(frames):
        cv2.imwrite(str(tmp_path / "video.mp4" / f"{index}.png"), frame)
    return frames


def test_readme_shows_the_example() -> None:
    [shown] = snippets("README.md")
    body = textwrap.dedent(EXAMPLE.read_text(encoding="utf-8").partition("-> None:\n")[2].partition("\n\n")[0]).strip()
    assert shown.split("\n\n", 1) == ["import stmask_deploy", body.replace("(bundle)", '("model_stmask")')
                                      .replace("(video)", '("video.mp4")') + "\n"]


def test_the_example_runs(tmp_path: Path, pictures: list[np.ndarray[Any, Any]]) -> None:
    done = subprocess.run([sys.executable, EXAMPLE, demo_bundle(), tmp_path / "video.mp4"], capture_output=True,
                          text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sum(line.startswith("frame ") for line in lines) == len(pictures)
    assert any(re.fullmatch(r"  \w+ \d+: score \d\.\d\d, \d+ pixels", line) for line in lines)
    assert subprocess.run([sys.executable, EXAMPLE], capture_output=True, text=True).stderr.startswith("Masks and")


def test_graphs_driven_by_another_program_give_the_same_objects() -> None:
    names = runpy.run_path(str(GRAPHS_ALONE))
    video, model = names["Video"](demo_bundle()), stmask_deploy.load(tracker="released")
    ages, num_different = [], 0
    for picture in render("hard", 2, num_frames=16, size=(250, 417)).pictures():
        shown, result = video.step(picture), model.step(picture)
        assert [known.identity for known in shown] == result.ids.tolist()
        assert [known.class_id for known in shown] == result.class_ids.tolist()
        assert [known.age for known in shown] == result.ages.tolist()
        assert [known.score for known in shown] == pytest.approx(result.scores.tolist(), abs=1e-5)
        for known, mask in zip(shown, result.masks, strict=True):
            found = names["to_picture"](known.mask, (video.height, video.width), picture.shape[:2])
            num_different += np.count_nonzero(found != mask)
        ages += result.ages.tolist()
    assert {0, 1, 10} <= set(ages) and video.next_identity > len(result) and num_different <= 5


@pytest.mark.parametrize("resized", [(192, 320), (190, 318), (40, 64)])
def test_its_masks_are_enlarged_without_the_padding(resized: tuple[int, int]) -> None:
    padded = (-(-resized[0] // 32) * 32, -(-resized[1] // 32) * 32)
    soft = np.random.default_rng(0).random((padded[0] // 4, padded[1] // 4), np.float32)
    found = runpy.run_path(str(GRAPHS_ALONE))["to_picture"](soft, resized, (135, 241))
    patch = upsample_mask(soft, *bilinear_axes(FrameGeometry((135, 241), resized, padded), soft.shape))
    expected = np.zeros((135, 241), np.bool_)
    expected[patch.y:patch.y + patch.pixels.shape[0], patch.x:patch.x + patch.pixels.shape[1]] = patch.pixels
    assert np.count_nonzero(found != expected) <= 3 and 0.3 < expected.mean() < 0.7


def test_that_program_runs_without_the_package(tmp_path: Path, pictures: list[np.ndarray[Any, Any]]) -> None:
    assert "stmask_deploy" not in re.sub('""".*?"""', "", GRAPHS_ALONE.read_text(encoding="utf-8"), flags=re.DOTALL)
    done = subprocess.run([sys.executable, GRAPHS_ALONE, demo_bundle(), tmp_path / "video.mp4" / "%d.png"],
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert sum(line.startswith("frame ") for line in lines) == len(pictures)
    assert any(re.fullmatch(r"  \w+ \d+: score \d\.\d\d, \d+ pixels", line) for line in lines)


def test_snippets_of_the_results_page_run(tmp_path: Path, pictures: list[np.ndarray[Any, Any]],
                                          monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model_stmask").symlink_to(demo_bundle(), target_is_directory=True)
    read, whole, stepwise, files = snippets("docs/results.md")
    run_snippet(whole, tmp_path, monkeypatch)
    assert len(capsys.readouterr().out.splitlines()) == len(pictures)
    names = run_snippet(stepwise, tmp_path, monkeypatch, model=stmask_deploy.load(), pictures=pictures)
    assert names["result"].index == len(pictures) - 1
    assert run_snippet(files, tmp_path, monkeypatch)["summary"].frames == len(pictures)
    assert len(run_snippet(read, tmp_path, monkeypatch)["results"].frames) == len(pictures)


def test_snippet_of_the_evaluation_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                             capsys: pytest.CaptureFixture[str]) -> None:
    [snippet] = snippets("docs/evaluation.md")
    run_snippet(snippet, tmp_path, monkeypatch, path=str(demo_annotations()), entries=[])
    assert "all classes" in capsys.readouterr().out


def test_the_page_names_every_argument_and_field() -> None:
    arguments = {name for call in (stmask_deploy.load, Model.track, Model.step, Model.reset)
                 for name in inspect.signature(call).parameters} - {"self", "options"}
    fields = {name for name in dir(FrameResult) if not name.startswith("_") and name != "from_tracked"}
    fields |= {field.name for kind in (FrameResult, RunOptions) for field in dataclasses.fields(kind)}
    fields |= {name for name in dir(Model) if not name.startswith("_") and name != "track_frames"}
    named = {name for code in re.findall(r"`([^`\n]+)`", from_python()) for name in re.findall("[a-z_]+", code)}
    assert sorted((arguments | fields) - named) == []
