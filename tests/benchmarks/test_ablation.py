"""Rows and tables of the ablation."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ablation
import numpy as np
import pytest
import torch
from ablation import ROWS, TABLES, Row, tables

from stmask_deploy.models.checkpoint import load_checkpoint
from stmask_deploy.models.stmask import build_stmask
from stmask_deploy.models.variant import infer_config
from stmask_deploy.pretrained import demo_checkpoint
from stmask_deploy.tracking_config import TrackingConfig
from stmask_deploy.training.recipe import Recipe, read_recipe


def result(row: str, seed: int, ap: float) -> dict[str, Any]:
    scores = {"ap": ap, "ap50": 2 * ap, "ap75": ap / 2}
    return {"row": row, "seed": seed, "scores": {"val": scores, "hard": {**scores, "ap": ap - 10}}}


def test_tables_name_rows_that_exist_and_leave_none_out() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    assert {name for table in TABLES.values() for name in table} == set(names)


def test_table_2_compares_every_subset_of_the_paper() -> None:
    assert len(TABLES["Table 2: calibrated branches (FCB)"]) == 9


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_row_is_the_network_its_name_says(row: Row) -> None:
    recipe = read_recipe("demo")
    model = json.loads(json.dumps(row.model(recipe.model)))  # through a file, as the run gets it
    config = Recipe(model, recipe.options).config(("a", "b"))
    shapes = {name: tuple(value.shape) for name, value in build_stmask(config).state_dict().items()}
    found = infer_config(shapes)  # what the parameters themselves say
    assert (found.temporal is not None) == ("+TF" in row.name)
    assert (len(set(found.kernel_shapes)) > 1) == ("+FCA" in row.name)
    kinds = {found.class_calibration.value, found.mask_calibration.value, found.track_calibration.value} - {"none"}
    assert kinds == ({"adaptive"} if "ada" in row.name else {"aligned"} if "ali" in row.name else set())
    assert np.allclose(found.anchor_shapes, config.anchor_shapes)


def test_rows_are_compared_with_the_released_rule_whatever_suits_the_demo_model() -> None:
    suited = {**read_recipe("demo").model, "tracking": {"tracker": "paper"}}
    for row in ROWS:
        assert Recipe(row.model(suited), read_recipe("demo").options).config(("a",)).tracking == TrackingConfig()


def test_means_and_spread_over_the_seeds() -> None:
    text = tables([result("baseline", 0, 30.0), result("baseline", 1, 33.0), result("+FCA", 0, 40.0)])
    assert "| baseline | 2 | 31.5 ± 1.5 | 63.0 ± 3.0 | 15.8 ± 0.8 | 21.5 ± 1.5 |" in text
    assert "| +FCA | 1 | 40.0 | 80.0 | 20.0 | 30.0 |" in text
    assert "+FCA small" not in text
    assert text.count("### ") == 4, "+FCA or the baseline is in each of the tables"


def test_a_complete_run_is_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def train(*_args: object, **_options: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(ablation.subprocess, "run", train)
    done = {**result("baseline", 0, 30.0), "budget": {"iterations": 5, "pairs_per_batch": 1}}
    (tmp_path / "baseline_0").mkdir()
    (tmp_path / "baseline_0" / "result.json").write_text(json.dumps(done))
    trunk, pairs = load_checkpoint(demo_checkpoint()), {"pairs_per_batch": 1}
    assert ablation.run(ROWS[0], 0, {"iterations": 5, **pairs}, trunk, tmp_path, tmp_path, None) == done
    with pytest.raises(AssertionError, match="trained again"):  # another budget is another run
        ablation.run(ROWS[0], 0, {"iterations": 6, **pairs}, trunk, tmp_path, tmp_path, None)


@pytest.mark.parametrize("row", [ROWS[0], ROWS[-2]], ids=lambda row: row.name)
def test_a_run_starts_from_the_trunk_alone(row: Row, tmp_path: Path) -> None:
    trunk = load_checkpoint(demo_checkpoint())
    started = load_checkpoint(ablation.write_start(row, 3, trunk, tmp_path))
    assert started.config.class_names == trunk.config.class_names
    assert (started.config.temporal is None) == (row.name == "baseline")
    for name, value in started.state.items():
        belongs = name.split(".")[0] in ("backbone", "fpn", "proto_net")
        is_constant = value.unique().numel() == 1  # biases and counters start alike everywhere
        assert torch.equal(value, trunk.state[name]) if belongs else (
            is_constant or name not in trunk.state or not torch.equal(value, trunk.state[name])), name


def test_the_table_holds_the_runs_of_all_processes_with_this_budget(tmp_path: Path) -> None:
    budget = {"iterations": 5}
    for seed, kept in ((0, budget), (1, budget), (2, {"iterations": 6})):
        (tmp_path / f"baseline_{seed}").mkdir()
        (tmp_path / f"baseline_{seed}" / "result.json").write_text(
            json.dumps({**result("baseline", seed, 30.0 + seed), "budget": kept}))
    assert [one["seed"] for one in ablation.finished(tmp_path, budget)] == [0, 1]


def test_other_clips_have_another_digest(tmp_path: Path) -> None:
    def digest(**texts: str) -> str:
        for split in ("train", "val", "hard"):
            (tmp_path / split).mkdir(exist_ok=True)
            (tmp_path / split / "instances.json").write_text(texts.get(split, "{}"))
        return ablation.data_digest(tmp_path)

    assert digest() == digest()
    assert len({digest(), digest(train="[]"), digest(val="[]"), digest(hard="[]")}) == 4
