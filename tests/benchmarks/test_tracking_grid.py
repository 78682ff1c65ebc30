"""The table over trackers and their settings on two tiny clips."""
from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from dataset import open_dataset
from tiny_bundles import describe
from tracking_grid import as_options, grid, main, track

from stmask_deploy.config import ModelConfig, TemporalConfig
from stmask_deploy.evaluation.evaluate import evaluate
from stmask_deploy.evaluation.track_dataset import track_dataset
from stmask_deploy.pretrained import demo_bundle
from stmask_deploy.runtime.loading import open_bundle
from stmask_deploy.runtime.model import load
from stmask_deploy.tracking_config import TrackingConfig


def test_a_match_without_overlap_takes_one_of_the_cosines() -> None:
    rows = [row for row in grid(ModelConfig(("cat",))) if row.tracker == "paper"]
    found = {(row.alpha, round(row.epsilon / row.alpha, 6)) for row in rows if row.epsilon and row.alpha}
    assert found == {(alpha, cosine) for alpha in (1.0, 2.0, 4.0) for cosine in (0.25, 0.4, 0.55, 0.7)}
    assert len(rows) == 4 * len(found)


def test_rows_are_what_plain_runs_give(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    done = CliRunner().invoke(main, [str(data), "--skip", "1", "--threads", "1", "--json", str(out), "--tracking",
                                     "paper,alpha=2,epsilon=1", "--tracking", "frame", "--tracking", "released"])
    assert done.exit_code == 0, done.output
    report = json.loads(out.read_text())
    truth, frames = open_dataset(data, skip=1)
    assert (report["videos"], report["tracks"]) == (len(truth.videos), len(truth.tracks)) == (1, len(truth.tracks))
    plain = [{"tracker": "paper", "alpha": 2.0, "epsilon": 1.0, "embedding_momentum": 0.0, "max_cover": 1.0},
             {"tracker": "frame"}, {"tracker": "released"}]
    for row, options in zip(report["rows"], plain, strict=True):
        scores = evaluate(truth, track_dataset(load(threads=1, **options), truth, frames))
        assert (row["ap"], row["ap50"], row["j"]) == (scores.ap, scores.ap50, scores.identities.j)
        assert row["switches_per_ten_tracks"] == scores.identities.switches_per_ten_tracks
    assert "| paper,alpha=2,beta=1,epsilon=1,embedding_momentum=0,max_cover=1 | " in done.output
    assert len({row["j"] for row in report["rows"]}) > 1


def test_no_row_depends_on_the_others(data: Path) -> None:
    """Where the frame graph gives the prototypes, as on a GPU, masks could be made before it is known for whom."""
    truth, frames = open_dataset(data)
    bundle = replace(open_bundle(demo_bundle(), device="cpu", threads=1), prototypes=None)
    options = [as_options(TrackingConfig(name)).resolve(bundle.description, is_live=False)
               for name in ("released", "frame")]
    for video in truth.videos:
        together = track(bundle, options, video, frames)
        assert together == [track(bundle, [one], video, frames)[0] for one in options]


def test_the_grid_holds_what_is_the_default_and_no_row_twice() -> None:
    for temporal, default in ((TemporalConfig(), "released,new_object_score=1.4"),
                              (None, "frame,new_object_score=1.4")):
        model = ModelConfig(("cat",), temporal=temporal)
        texts = [str(row) for row in grid(model)]
        assert default in texts and len(set(texts)) == len(texts)
        for row in grid(model):
            as_options(row).resolve(describe(model=model), is_live=False)  # can run


@pytest.mark.parametrize("args, told", [
    (["nowhere"], "nowhere"),
    (["{data}", "--bundle", "nowhere"], "nowhere does not exist"),
    (["{data}", "--skip", "2"], "--skip 2 leaves no video"),
    (["{data}", "--tracking", "paper,alpha=x"], "alpha must be a number"),
])
def test_bad_input(args: list[str], told: str, data: Path) -> None:
    done = CliRunner().invoke(main, [arg.format(data=data) for arg in args])
    assert (told in done.output, done.exit_code) == (True, 2), done.output
