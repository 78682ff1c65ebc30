"""Untrained weights: seeded, in range on the frames they were scaled to, and loadable."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import untrained
from click.testing import CliRunner
from numpy.typing import NDArray
from untrained import CANDIDATE_THRESHOLD, build_untrained

from stmask_deploy.config import Calibration, ModelConfig, TemporalConfig
from stmask_deploy.models.checkpoint import CONFIG_KEY, load_checkpoint
from stmask_deploy.models.frames import prepare_frames
from stmask_deploy.models.stmask import FramePrediction, STMask, build_stmask
from stmask_deploy.synthetic.clips import render

CONFIG = ModelConfig(
    class_names=("a", "b", "c"), stem_width=8, depths=(1, 1, 1, 1), widths=(8, 8, 8, 8), expansion=2,
    deformable_blocks=((2, 0),), fpn_width=16, proto_width=16, num_prototypes=8, head_width=16, embedding_dim=8,
    class_calibration=Calibration.ADAPTIVE, mask_calibration=Calibration.ALIGNED,
    temporal=TemporalConfig(widths=(16, 16, 16)), input_size=(96, 160))


@pytest.fixture(scope="module")
def frames() -> list[NDArray[np.uint8]]:
    return list(render("val", 0, 2, CONFIG.input_size).pictures())


@pytest.fixture(scope="module")
def model(frames: list[NDArray[np.uint8]]) -> STMask:
    return build_untrained(CONFIG, frames, candidate_share=0.02)


def predict(model: STMask, frames: list[NDArray[np.uint8]]) -> FramePrediction:
    with torch.no_grad():
        prediction: FramePrediction = model(prepare_frames(torch.from_numpy(np.stack(frames)), CONFIG))
    return prediction


@pytest.fixture(autouse=True)
def global_seed_stays(request: pytest.FixtureRequest) -> Iterator[None]:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state())


def test_share_of_candidates(model: STMask, frames: list[NDArray[np.uint8]]) -> None:
    best = predict(model, frames).anchors.class_probs[..., 1:].amax(dim=-1)
    assert float((best > CANDIDATE_THRESHOLD).float().mean()) == pytest.approx(0.02, abs=0.003)


def test_ranges(model: STMask, frames: list[NDArray[np.uint8]]) -> None:
    prediction = predict(model, frames)
    anchors = prediction.anchors
    assert float(anchors.box_deltas.std()) == pytest.approx(1, abs=0.05)
    assert float(anchors.centerness.min()) > 0
    assert 0.1 < float(prediction.prototypes.mean()) < 2
    masks = torch.sigmoid(prediction.prototypes @ torch.tanh(anchors.mask_coeffs[0, :50]).T)
    assert 0.2 < float((masks > 0.5).float().mean()) < 0.8


def test_temporal_deltas_are_small_and_not_zero(model: STMask, frames: list[NDArray[np.uint8]]) -> None:
    maps = predict(model, frames)
    boxes = torch.tensor([[0.1, 0.2, 0.5, 0.6], [0.4, 0.1, 0.9, 0.9]])
    with torch.no_grad():
        deltas, _ = model.TemporalNet(maps.fpn[:1], maps.fpn[1:], maps.temporal[:1], maps.temporal[1:], boxes)
    assert 0 < float(deltas.abs().max()) < 2


def test_seed_decides(frames: list[NDArray[np.uint8]], model: STMask) -> None:
    same = build_untrained(CONFIG, frames, candidate_share=0.02)
    other = build_untrained(CONFIG, frames, candidate_share=0.02, seed=1)
    name = "fpn.lat_layers.0.weight"
    assert torch.equal(model.state_dict()[name], same.state_dict()[name])
    assert not torch.equal(model.state_dict()[name], other.state_dict()[name])


def test_weights_make_a_checkpoint(model: STMask, tmp_path: Path) -> None:
    torch.save({"state_dict": model.state_dict(), CONFIG_KEY: CONFIG.to_dict()}, tmp_path / "untrained.pth")
    assert load_checkpoint(tmp_path / "untrained.pth").config == CONFIG


def test_a_checkpoint_of_the_released_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def quickly(config: ModelConfig, *_: object, **__: object) -> STMask:
        with torch.random.fork_rng(devices=[]):
            return build_stmask(config)

    monkeypatch.setattr(untrained, "build_untrained", quickly)
    path = tmp_path / "r50.pth"
    done = CliRunner().invoke(untrained.main, [str(path), "--class-calibration", "adaptive"])
    assert done.exit_code == 0 and "STMask R50-DCN FCA FCB(ada: class) TF, 50.2 million" in done.output
    config = load_checkpoint(path).config
    assert config.class_names[:2] == ("person", "giant_panda") and config.input_size == (360, 640)
    assert CliRunner().invoke(untrained.main, [str(path)]).exit_code == 4
