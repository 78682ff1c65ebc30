"""What a network starts from: seeded noise of the right size, or a checkpoint, perhaps of other classes."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import CALIBRATED, CONFIG

from stmask_deploy.config import Calibration, CenternessOrder, ModelConfig, TemporalConfig
from stmask_deploy.errors import InputError
from stmask_deploy.models.checkpoint import CONFIG_KEY, load_checkpoint
from stmask_deploy.models.frames import prepare_frames
from stmask_deploy.synthetic.clips import render
from stmask_deploy.tracking_config import TrackingConfig
from stmask_deploy.training.options import TrainingOptions
from stmask_deploy.training.recipe import Recipe
from stmask_deploy.training.run import start_run
from stmask_deploy.training.weights import BACKGROUND_PRIOR, CENTERNESS_PRIOR, from_checkpoint, from_scratch

RELEASED = replace(CALIBRATED, centerness_order=CenternessOrder.RELEASED, class_names=("class_1", "class_2", "class_3"),
                   temporal=TemporalConfig(patch_size=5, widths=(16, 16, 16)), input_size=(360, 640))
RECIPE = Recipe({}, TrainingOptions())


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plain tensors without a configuration, as the released checkpoints are; every norm has statistics of its own."""
    model = from_scratch(RELEASED, seed=9)
    generator = torch.Generator().manual_seed(0)
    for name, value in model.state_dict().items():
        if value.is_floating_point() and ("bn" in name or "downsample.1" in name):
            value.copy_(torch.rand(value.shape, generator=generator) + 0.5)
    path = tmp_path_factory.mktemp("released") / "tiny.pth"
    torch.save(model.state_dict(), path)
    return path


@pytest.mark.parametrize("config", [
    CONFIG, CALIBRATED, replace(CALIBRATED, class_names=("only",), anchor_scales=(1.0, 1.4)),
    replace(CALIBRATED, class_calibration=Calibration.ALIGNED, temporal=None),
])
def test_an_untrained_network_sees_background_everywhere(config: ModelConfig) -> None:
    frames = torch.from_numpy(np.stack(list(render("val", 0, 2, config.input_size).pictures())))
    model = from_scratch(config).train()
    with torch.no_grad():
        anchors = model(prepare_frames(frames, config)).anchors
    assert float(anchors.class_probs[..., 0].mean()) == pytest.approx(BACKGROUND_PRIOR, abs=0.01)
    others = anchors.class_probs[..., 1:].mean(dim=(0, 1))
    assert float(others.max()) < 3 * float(others.min())  # no class is preferred
    assert float(anchors.centerness.mean()) == pytest.approx(CENTERNESS_PRIOR, abs=0.25)
    assert 1e-5 < float(anchors.box_deltas.std()) < 0.5
    assert 1e-5 < float(anchors.mask_coeffs.std()) < 0.5


def test_seed_decides_and_the_global_one_stays() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    one, same, other = from_scratch(CALIBRATED, 1), from_scratch(CALIBRATED, 1), from_scratch(CALIBRATED, 2)
    assert torch.equal(before, torch.get_rng_state())
    for name, value in one.state_dict().items():
        assert torch.equal(value, same.state_dict()[name])
    name = "backbone.layers.2.0.conv2.weight"
    assert not torch.equal(one.state_dict()[name], other.state_dict()[name])


def test_a_checkpoint_keeps_everything_where_the_classes_fit(released: Path) -> None:
    model, config, notes = from_checkpoint(released, ("ant", "bee", "cat"))
    state = torch.load(released, weights_only=True)
    assert set(state) == set(model.state_dict())
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert config == replace(RELEASED, class_names=("ant", "bee", "cat"))
    assert "class layers kept: as many classes, but other names (ant, bee, cat, ...)" in notes


def test_tracking_that_was_tuned_for_other_clips_is_kept_and_named(tmp_path: Path) -> None:
    tuned = replace(CONFIG, tracking=TrackingConfig("paper", alpha=4.0))
    torch.save({"state_dict": from_scratch(tuned).state_dict(), CONFIG_KEY: tuned.to_dict()}, tmp_path / "own.pth")
    _, config, notes = from_checkpoint(tmp_path / "own.pth", CONFIG.class_names)
    assert config.tracking == tuned.tracking and any("paper,alpha=4,beta=1,epsilon=0.7" in note for note in notes)


def test_the_same_names_need_no_remark(tmp_path: Path) -> None:
    torch.save({"state_dict": from_scratch(CONFIG).state_dict(), CONFIG_KEY: CONFIG.to_dict()}, tmp_path / "own.pth")
    _, config, notes = from_checkpoint(tmp_path / "own.pth", CONFIG.class_names)
    assert config == CONFIG and not any("class layers" in note or "tracking" in note for note in notes)


@pytest.mark.parametrize("names", [("ant",), ("ant", "bee", "cat", "dog", "emu")])
def test_class_layers_start_anew_where_their_number_differs(released: Path, names: tuple[str, ...]) -> None:
    model, config, notes = from_checkpoint(released, names, seed=4)
    state, fresh = torch.load(released, weights_only=True), from_scratch(config, seed=4).state_dict()
    anew = {f"prediction_layers.0.conf_layer.{kernel}.conv.{kind}"
            for kernel in range(3) for kind in ("weight", "bias")}
    for name, value in model.state_dict().items():
        if name in anew:
            assert value.shape[0] == len(names) + 1
            assert torch.equal(value, fresh[name]), name
        else:
            assert torch.equal(value, state[name]), name
    assert notes[-1] == (f"class layers start anew: the checkpoint has 3 classes, the dataset {len(names)} "
                         "(6 parameters)")
    assert config.centerness_order is CenternessOrder.RELEASED


def save(path: Path, config: ModelConfig) -> Path:
    torch.save({"state_dict": from_scratch(config, 7).state_dict(), CONFIG_KEY: config.to_dict()}, path)
    return path


@pytest.mark.parametrize("config", [CALIBRATED, replace(CONFIG, anchor_scales=(1.0, 1.4))])
def test_class_layers_follow_the_names_of_the_classes(tmp_path: Path, config: ModelConfig) -> None:
    config = replace(config, class_names=("ant", "bee", "cat"))
    source = save(tmp_path / "three.pth", config)
    before = load_checkpoint(source).build()
    after, found, notes = from_checkpoint(source, ("cat", "ant", "bee"))
    assert found.class_names == ("cat", "ant", "bee") and "class layers reordered" in notes[-1]
    frames = torch.randn(1, 3, *config.padded_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        old, new = before(frames).anchors.class_probs, after(frames).anchors.class_probs
    assert torch.allclose(new, old[..., [0, 3, 1, 2]], atol=1e-6)
    assert not torch.allclose(new, old, atol=1e-5)


def test_other_classes_start_anew_even_if_they_are_as_many(tmp_path: Path) -> None:
    source = save(tmp_path / "three.pth", replace(CONFIG, class_names=("ant", "bee", "cat")))
    model, config, notes = from_checkpoint(source, ("ant", "bee", "dog"), seed=3)
    fresh, name = from_scratch(config, 3).state_dict(), "prediction_layers.0.conf_layer.0.weight"
    assert torch.equal(model.state_dict()[name], fresh[name])
    assert notes[-1] == "class layers start anew: the checkpoint knows other classes (ant, bee, cat, ...)"


def test_a_checkpoint_keeps_its_order_unless_asked(released: Path) -> None:
    kept = start_run(RECIPE, ("a", "b", "c"), released)
    asked = start_run(RECIPE, ("a", "b", "c"), released, CenternessOrder.ANCHOR)
    for start, order in ((kept, CenternessOrder.RELEASED), (asked, CenternessOrder.ANCHOR)):
        assert start.config.centerness_order is order
        assert start.model.prediction_layers[0].centerness_order is order
        assert start.is_trained
    assert "centerness order: anchor, as asked" in asked.notes and not any("as asked" in one for one in kept.notes)
    frames = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        found = [start.model(frames).anchors.centerness for start in (kept, asked)]
    assert not torch.equal(*found)  # the setting reaches the network
    assert torch.equal(found[0].sort().values, found[1].sort().values)


def test_another_input_size_changes_no_weight(released: Path) -> None:
    kept = start_run(RECIPE, ("a", "b", "c"), released)
    asked = start_run(RECIPE, ("a", "b", "c"), released, input_size=(90, 160))
    assert (kept.config.input_size, asked.config.input_size) == ((360, 640), (90, 160))
    assert "input size: 90x160, as asked" in asked.notes
    for name, value in asked.model.state_dict().items():
        assert torch.equal(value, kept.model.state_dict()[name])


def test_a_new_network_is_the_recipes(tmp_path: Path) -> None:
    values = {name: value for name, value in CONFIG.to_dict().items()
              if name not in ("class_names", "centerness_order")}
    start = start_run(Recipe(values, TrainingOptions(seed=6)), ("a", "b"))
    assert start.config == replace(CONFIG, class_names=("a", "b")) and not start.is_trained
    for name, value in from_scratch(start.config, seed=6).state_dict().items():
        assert torch.equal(value, start.model.state_dict()[name])


def test_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        from_checkpoint(tmp_path / "none.pth", ("a",))


def test_names_that_differ_in_case_and_spaces_are_the_same_classes(tmp_path: Path) -> None:
    config = replace(CALIBRATED, class_names=("giant_panda", "traffic_light", "cat"))
    source = save(tmp_path / "three.pth", config)
    before = load_checkpoint(source).build().state_dict()
    after, found, notes = from_checkpoint(source, ("Giant panda", "traffic-light", "Cat"))
    assert found.class_names == ("Giant panda", "traffic-light", "Cat")
    assert all(torch.equal(value, before[name]) for name, value in after.state_dict().items())
    assert not any("class layers" in note for note in notes)
    assert "class layers reordered" in from_checkpoint(source, ("Cat", "Giant Panda", "traffic light"))[2][-1]


def test_names_that_only_their_case_tells_apart_are_not_reordered(tmp_path: Path) -> None:
    source = save(tmp_path / "two.pth", replace(CALIBRATED, class_names=("cat", "Cat", "dog")))
    assert "class layers start anew" in from_checkpoint(source, ("dog", "cat", "Cat"))[2][-1]


def test_the_classes_of_a_checkpoint_can_be_named(released: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("ant\nbee\ncat\n")
    plain = from_checkpoint(released, ("cat", "ant", "bee"))
    _, config, notes = named = from_checkpoint(released, ("cat", "ant", "bee"), names_file=names)
    assert config.class_names == ("cat", "ant", "bee")
    assert [note for note in notes if "class" in note] == [
        "class names: names.txt", "class layers reordered: the dataset has the checkpoint's classes in another order"]
    name = "prediction_layers.0.conf_layer.0.conv.weight"
    kept, reordered = (one[0].state_dict()[name].unflatten(0, (-1, 4)) for one in (plain, named))
    assert torch.equal(reordered, kept[:, [0, 3, 1, 2]]) and not torch.equal(reordered, kept)


def test_names_that_do_not_fit_the_checkpoint_are_refused(released: Path, tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("ant\nbee\n")
    with pytest.raises(InputError, match="names 2 classes, the checkpoint has 3"):
        from_checkpoint(released, ("ant", "bee"), names_file=names)


def test_a_network_that_no_memory_holds() -> None:
    with pytest.raises(InputError, match=r"a network of \d+ GiB of parameters; at most 4 GiB can be trained"):
        from_scratch(replace(CONFIG, fpn_width=16384, head_width=16384))
