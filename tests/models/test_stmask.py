"""The network as a whole: sizes, numbers of anchors, levels, training and evaluation mode."""
from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_models import CONFIG, random_model, tiny_config

from stmask_deploy.config import Calibration, CenternessOrder, ModelConfig
from stmask_deploy.geometry import make_anchors
from stmask_deploy.models.stmask import build_stmask


def frames(config: ModelConfig, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 3, *config.padded_size, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("changes", [
    pytest.param({}, id="as released"),
    pytest.param({"deformable_blocks": ((1, 0), (3, 0)), "class_calibration": Calibration.ADAPTIVE}, id="adaptive"),
    pytest.param({"class_calibration": Calibration.ALIGNED, "mask_calibration": Calibration.ADAPTIVE,
                  "track_calibration": Calibration.ALIGNED}, id="FCB everywhere"),
    pytest.param({"kernel_shapes": ((3, 3), (3, 2), (2, 3)), "class_calibration": Calibration.ALIGNED}, id="even"),
    pytest.param({"anchor_scales": (1.0, 1.3, 1.6), "mask_calibration": Calibration.ADAPTIVE}, id="nine anchors"),
    pytest.param({"temporal": None, "num_downsamples": 0}, id="no temporal network, three levels"),
    pytest.param({"input_size": (33, 65)}, id="odd size"),
])
def test_shapes(changes: dict[str, Any]) -> None:
    config = tiny_config(**changes)
    with torch.no_grad():
        found = random_model(config)(frames(config, 2))
    sizes = config.level_sizes
    count = len(make_anchors(sizes, config.anchor_shapes, config.anchor_scales))
    assert found.anchors.box_deltas.shape == (2, count, 4)
    assert found.anchors.class_probs.shape == (2, count, 3)
    assert found.anchors.centerness.shape == (2, count)
    assert found.anchors.mask_coeffs.shape == (2, count, 4)
    assert found.anchors.embeddings.shape == (2, count, 8)
    assert found.prototypes.shape == (2, 2 * sizes[0][0], 2 * sizes[0][1], 4)
    assert found.fpn.shape == (2, 6, *sizes[1]) and found.temporal.shape == (2, 7, *sizes[1])
    assert all(value.isfinite().all() for value in vars(found.anchors).values())


@pytest.mark.parametrize("level", range(5))
def test_level_of_the_temporal_network(level: int) -> None:
    config = tiny_config(temporal=replace(CONFIG.temporal, level=level))
    model = random_model(config)
    with torch.no_grad():
        found = model(frames(config))
        levels = model.fpn(model.backbone(frames(config))[-3:])
        assert torch.equal(found.p3, levels[0]) and torch.equal(found.prototypes, model.proto_net(levels[0]))
        assert torch.equal(found.fpn, levels[level])
        assert torch.equal(found.temporal, model.prediction_layers[0].upfeature(levels[level]))


def test_centerness_order_is_all_that_it_changes() -> None:
    released, anchor = (random_model(tiny_config(centerness_order=order)) for order in CenternessOrder)
    with torch.no_grad():
        a, b = released(frames(CONFIG)).anchors, anchor(frames(CONFIG)).anchors
    changed = {name for name in vars(a) if not torch.equal(getattr(a, name), getattr(b, name))}
    assert changed == {"centerness"}
    assert sorted(a.centerness[0].tolist()) == pytest.approx(sorted(b.centerness[0].tolist()), abs=1e-6)


def test_frames_of_a_batch_are_independent() -> None:
    model = random_model(CONFIG)
    batch = frames(CONFIG, 2)
    with torch.no_grad():
        both, second = model(batch), model(batch[1:])
    for name, value in vars(second.anchors).items():
        torch.testing.assert_close(getattr(both.anchors, name)[1:], value)


def test_evaluation_mode_and_temporal_part() -> None:
    assert not build_stmask(CONFIG).training
    assert hasattr(build_stmask(CONFIG), "TemporalNet")
    assert not hasattr(build_stmask(tiny_config(temporal=None)), "TemporalNet")


def test_everything_takes_part_in_training() -> None:
    config = tiny_config(deformable_blocks=((2, 0),), class_calibration=Calibration.ADAPTIVE,
                         mask_calibration=Calibration.ALIGNED)
    model = random_model(config).train()
    found = model(frames(config, 2))
    deltas = model.TemporalNet(found.fpn[:1], found.fpn[1:], found.temporal[:1], found.temporal[1:],
                               torch.tensor([[0.1, 0.1, 0.9, 0.8]]))
    values = [*vars(found.anchors).values(), found.prototypes, *deltas]
    sum(value.square().sum() for value in values).backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not without
