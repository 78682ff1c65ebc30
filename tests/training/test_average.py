"""The moving average of weights, against its definition."""
from __future__ import annotations

import torch
from tiny_training import CONFIG

from stmask_deploy.training.average import WeightAverage
from stmask_deploy.training.weights import from_scratch


def test_average_by_hand() -> None:
    model = from_scratch(CONFIG)
    average = WeightAverage(model, decay=0.3)
    bias = model.proto_net[0].bias
    expected = float(bias[0].detach())
    for step, value in enumerate((1.0, -2.0, 4.0, 8.0)):
        with torch.no_grad():
            bias[0] = value
            model.backbone.bn1.running_mean[1] = 10 * value
            model.backbone.bn1.num_batches_tracked += 5
        average.update(model)
        decay = min(0.3, (1 + step) / (10 + step))  # 0.1, 0.18, 0.25, 0.3
        expected = decay * expected + (1 - decay) * value
    state = average.model.state_dict()
    torch.testing.assert_close(float(state["proto_net.0.bias"][0]), expected)
    assert int(state["backbone.bn1.num_batches_tracked"]) == 20 and average.num_updates == 4
    assert 40 < float(state["backbone.bn1.running_mean"][1]) < 80  # statistics are averaged as well


def test_the_average_neither_learns_nor_shares() -> None:
    model = from_scratch(CONFIG).train()
    average = WeightAverage(model, decay=0.9)
    assert not average.model.training and model.training
    assert not any(one.requires_grad for one in average.model.parameters())
    assert all(one.requires_grad for one in model.parameters())
    before = {name: value.clone() for name, value in average.model.state_dict().items()}
    with torch.no_grad():
        for value in model.parameters():
            value.add_(1)
    assert all(torch.equal(value, before[name]) for name, value in average.model.state_dict().items())


def test_without_decay_it_is_the_last_network() -> None:
    model = from_scratch(CONFIG)
    average = WeightAverage(from_scratch(CONFIG, seed=1), decay=0.0)
    average.update(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, average.model.state_dict()[name]), name
