"""Recipes: the shipped ones, files, and what is wrong with others."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from stmask_deploy.config import CenternessOrder
from stmask_deploy.errors import InputError
from stmask_deploy.models.stmask import build_stmask
from stmask_deploy.training.options import TrainingOptions
from stmask_deploy.training.recipe import read_recipe, shipped_recipes


def write(folder: Path, values: Any) -> str:
    path = folder / "recipe.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return str(path)


@pytest.mark.parametrize("name", ["demo", "demo-small", "r50-dcn-ada"])
def test_shipped_recipes_describe_networks(name: str) -> None:
    config = read_recipe(name).config(("cat", "dog"))
    assert config.class_names == ("cat", "dog") and config.centerness_order is CenternessOrder.ANCHOR
    with torch.device("meta"):
        build_stmask(config)


@pytest.mark.parametrize("name", ["demo-finish", "fine-tune"])
def test_a_recipe_for_trained_networks_has_none_of_its_own(name: str) -> None:
    recipe = read_recipe(name)
    with pytest.raises(InputError, match="give one with --from"):
        recipe.config(("cat", "dog"))


def test_all_recipes_are_described_here() -> None:
    assert shipped_recipes() == ["demo", "demo-finish", "demo-small", "fine-tune", "r50-dcn-ada"]


def test_fine_tuning_keeps_what_the_checkpoint_has() -> None:
    options = read_recipe("fine-tune").options
    assert options.freeze_norms is None, "statistics stay those of the checkpoint"
    assert options.weights == TrainingOptions().weights


def test_the_demo_model_is_finished_as_it_was_begun() -> None:
    begun, finish = read_recipe("demo").options, read_recipe("demo-finish").options
    assert (finish.positive_iou, finish.negative_iou, finish.max_gap) == (
        begun.positive_iou, begun.negative_iou, begun.max_gap)
    assert not finish.freeze_norms


def test_the_papers_network() -> None:
    recipe = read_recipe("r50-dcn-ada")
    config = recipe.config(tuple(f"class {number}" for number in range(40)))
    assert config.variant == "STMask R50-DCN FCA FCB(ada: class) TF"
    assert len(config.deformable_blocks) == 7 and config.padded_size == (384, 640)
    # Of 160k iterations the rate falls at 66k and 133k (paper, section 4.1).
    rates = {at: recipe.options.rate(at) for at in (60_000, 100_000, 150_000)}
    assert rates == pytest.approx({60_000: 1, 100_000: 0.1, 150_000: 0.01})


def test_a_file(tmp_path: Path) -> None:
    recipe = read_recipe(write(tmp_path, {"model": {"fpn_width": 32, "centerness_order": "released"},
                                          "training": {"iterations": 3}}))
    config = recipe.config(("a",))
    assert (config.fpn_width, config.centerness_order) == (32, CenternessOrder.RELEASED)
    assert recipe.options == TrainingOptions(iterations=3)


def test_an_empty_recipe_is_all_defaults(tmp_path: Path) -> None:
    assert read_recipe(write(tmp_path, {})).options == TrainingOptions()


@pytest.mark.parametrize(("values", "message"), [
    ("{", "is not valid JSON"),
    pytest.param("[" * 100_000, "is not valid JSON", id="nested"),
    pytest.param('{"training": {"iterations": ' + "1" * 5000 + "}}", "is not valid JSON", id="long"),
    ([], "expected an object with 'model' and 'training'"),
    ({"modell": {}}, "expected an object with 'model' and 'training'"),
    ({"model": []}, "both objects"),
    ({"model": {"class_names": ["a"]}}, "class_names come from the dataset"),
    ({"training": {"iterations": -5}}, "iterations"),
    ({"training": {"batch": 5}}, "unknown keys batch"),
])
def test_no_recipe(tmp_path: Path, values: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_recipe(write(tmp_path, values))


@pytest.mark.parametrize("model", [
    {"depth": 4}, {"depths": [1, 1]}, {"temporal": {"patch_size": 4}}, {"fpn_width": "x"},
])
def test_an_impossible_network(tmp_path: Path, model: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="model configuration"):
        read_recipe(write(tmp_path, {"model": model})).config(("a",))


def test_unknown_names_are_answered_with_the_known_ones(tmp_path: Path) -> None:
    for name in ("dmeo", str(tmp_path)):
        with pytest.raises(InputError, match=r"shipped \(demo, demo-finish, demo-small, fine-tune, r50-dcn-ada\) nor"):
            read_recipe(name)
    (tmp_path / "latin").write_bytes(b"\xff\xfe{}")
    with pytest.raises(InputError, match="nor a readable file"):
        read_recipe(str(tmp_path / "latin"))
