"""The demo model that comes with the package: complete, in one piece, and good at what it is for."""
from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import pytest
from click.testing import CliRunner
from without_torch import RUN_WITHOUT_TORCH

import stmask_deploy
from stmask_deploy.bundle import read_description
from stmask_deploy.config import Calibration, CenternessOrder
from stmask_deploy.datasets.annotations import read_annotations
from stmask_deploy.evaluation.cli import main as evaluate
from stmask_deploy.pretrained import demo_annotations, demo_bundle, demo_checkpoint, demo_clip
from stmask_deploy.runtime.cli import main as run


def test_bundle_and_checkpoint_are_the_same_model_with_all_components() -> None:
    from stmask_deploy.models.checkpoint import load_checkpoint
    from stmask_deploy.training.recipe import read_recipe

    checkpoint, description = load_checkpoint(demo_checkpoint()), read_description(demo_bundle())
    assert description.checkpoint_sha256 == checkpoint.sha256
    config = checkpoint.config
    assert description.model == config
    assert len(set(config.kernel_shapes)) == 3, "FCA"
    assert config.class_calibration is Calibration.ADAPTIVE, "FCB"
    assert config.temporal is not None and config.deformable_blocks
    assert config.centerness_order is CenternessOrder.ANCHOR
    for name in ("demo-small", "demo"):
        assert read_recipe(name).config(config.class_names) == replace(
            config, input_size=read_recipe(name).config(config.class_names).input_size), "what the recipe makes"
    assert sum(value.numel() for value in checkpoint.state.values()) < 3e6


def test_it_is_small() -> None:
    sizes = {path.name: path.stat().st_size / 1e6 for path in demo_bundle().parent.rglob("*") if path.is_file()}
    assert sizes["shapes.pth"] <= 10
    assert sum(sizes.values()) <= 25


def test_both_backends_find_their_graphs() -> None:
    description = read_description(demo_bundle())
    for backend in ("onnxruntime", "openvino"):
        for role in description.roles:
            assert description.graph_path(demo_bundle(), role, backend).is_file()


def test_the_truth_is_that_of_the_clip() -> None:
    truth = read_annotations(demo_annotations())
    with av.open(str(demo_clip())) as container:
        frames = list(container.decode(video=0))
    (video,) = truth.videos
    assert (len(frames), frames[0].height, frames[0].width) == (video.length, video.height, video.width)
    names = tuple(category.name for category in truth.categories)
    assert names == read_description(demo_bundle()).model.class_names
    gaps = [track for track in truth.tracks
            if "x x" in " ".join("".join("x" if one else " " for one in track.segmentations).split())]
    assert gaps, "something leaves the view and comes back"


def test_load_without_a_bundle() -> None:
    model = stmask_deploy.load()
    assert model.description.checkpoint_name == demo_checkpoint().name


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_run_without_bundle_and_without_torch_finds_the_shapes(tmp_path: Path, backend: str) -> None:
    done = subprocess.run([sys.executable, "-c", RUN_WITHOUT_TORCH, demo_clip(), "-o", tmp_path, "--backend", backend,
                           "--no-video"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    scores = tmp_path / "scores.json"
    result = CliRunner().invoke(evaluate, [str(tmp_path / "results.jsonl"), str(demo_annotations()),
                                           "--json", str(scores)])
    assert result.exit_code == 0, result.output
    found = json.loads(scores.read_text())
    assert found["identities"]["j"] > 50
    assert found["ap50"] > 60


def test_the_help_says_what_runs_without_a_bundle() -> None:
    assert "the demo model" in CliRunner().invoke(run, ["--help"]).output
