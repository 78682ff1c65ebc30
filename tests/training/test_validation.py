"""Evaluation of a network in training: by the runtime, with the dataset's own category ids."""
from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_training import CALIBRATED, CONFIG, read_clips

from stmask_deploy.config import ModelConfig
from stmask_deploy.errors import InputError
from stmask_deploy.export import torch_backend
from stmask_deploy.training.validation import evaluate_model
from stmask_deploy.training.weights import from_scratch


def finds_something(config: ModelConfig, class_id: int) -> torch.nn.Module:
    """A network that takes most of every frame for one class."""
    model = from_scratch(config)
    head = model.prediction_layers[0]
    with torch.no_grad():
        for layer in head.conf_layer:
            bias = layer.bias if hasattr(layer, "bias") else layer.conv.bias
            bias.view(-1, config.num_classes)[:, class_id] += 8
    return model


@pytest.mark.parametrize("config", [CONFIG, replace(CONFIG, temporal=None), replace(CALIBRATED, input_size=(50, 90))])
def test_results_count_for_the_categories_of_the_file(tmp_path: Path, config: ModelConfig) -> None:
    annotations, frames = read_clips(tmp_path)
    model = finds_something(config, class_id=2).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluation = evaluate_model(model, config, annotations, frames)
    assert evaluation.videos == 2 and evaluation.results > 0
    assert [(one.category_id, one.name, one.tracks) for one in evaluation.per_class] == [(3, "box", 2), (8, "disc", 2)]
    box, disc = evaluation.per_class
    assert box.ar10 == 0 and disc.ar10 is not None
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_untrained_network_finds_nothing(tmp_path: Path) -> None:
    annotations, frames = read_clips(tmp_path)
    evaluation = evaluate_model(from_scratch(CONFIG), CONFIG, annotations, frames)
    assert (evaluation.ap, evaluation.results) == (0, 0)


def test_a_frame_that_cannot_be_read(tmp_path: Path) -> None:
    annotations, frames = read_clips(tmp_path)
    (frames / "clip2" / "00001.png").write_bytes(b"")
    with pytest.raises(InputError, match="cannot be read as a picture"):
        evaluate_model(from_scratch(CONFIG), CONFIG, annotations, frames)


def test_the_network_runs_where_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    plain = torch_backend.torch_bundle
    monkeypatch.setattr(torch_backend, "torch_bundle", lambda model, description, device: asked.append(device) or plain(
        model, description))
    evaluate_model(from_scratch(CONFIG), CONFIG, *read_clips(tmp_path), "cuda:1")
    assert asked == ["cuda:1"]
