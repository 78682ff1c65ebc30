"""The training loop: it learns, it freezes what it shall, and it stops at nonsense."""
from __future__ import annotations

from dataclasses import fields, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import assert_same_tensors, losses, new_run, records, run_in
from tiny_training import ALONE, CONFIG, OPTIONS, read_clips, write_clips
from torch import nn

from stmask_deploy.config import ModelConfig
from stmask_deploy.errors import InputError, StmaskError
from stmask_deploy.export.exporter import ExportOptions, export_checkpoint
from stmask_deploy.models.checkpoint import load_checkpoint
from stmask_deploy.models.stmask import STMask
from stmask_deploy.training.data import Data
from stmask_deploy.training.learner import PairLearner
from stmask_deploy.training.log import TrainingLog
from stmask_deploy.training.options import LossWeights
from stmask_deploy.training.pairs import PairDataset
from stmask_deploy.training.processes import Process
from stmask_deploy.training.run import train
from stmask_deploy.training.run_folder import FILES
from stmask_deploy.training.snapshot import Snapshot
from stmask_deploy.training.trainer import Trainer
from stmask_deploy.training.validation import evaluate_model
from stmask_deploy.training.weights import from_scratch


@pytest.fixture(scope="module")
def learned(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run long enough to know the clips by heart."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("learned")
    run_in(folder, data, new_run(replace(OPTIONS, iterations=100, pairs_per_batch=4, learning_rate=4e-3)),
           validation=data)
    return folder


@pytest.mark.slow
def test_a_short_training_learns_its_clips(data: Data, learned: Path) -> None:
    first, *_, last = losses(learned)
    for name in ("total", "classes", "boxes", "overlap", "masks", "embeddings", "mask_shift"):
        assert last[1][name] < 0.75 * first[1][name], name  # about 0.6; processors round differently
    start = new_run()
    before = evaluate_model(start.model, start.config, data.annotations, data.frames)
    (validation,) = records(learned, "validation")
    assert before.ap == 0 and validation["iteration"] == 100
    assert validation["validation"]["ap"] > 40 and validation["validation"]["tracks"] == 4


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_objects_are_pasted_where_the_options_say_so(data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                     share: float) -> None:
    pasted = []
    monkeypatch.setattr("stmask_deploy.training.pairs.paste", lambda onto, *_others: pasted.append(onto) or onto)
    run_in(tmp_path, data, new_run(replace(OPTIONS, iterations=3, copy_paste=share)))
    assert bool(pasted) == bool(share)


@pytest.mark.slow
def test_the_result_is_a_checkpoint_that_exports(data: Data, learned: Path, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(learned / "model.pth")
    assert checkpoint.config == CONFIG and "configuration: the checkpoint's own" in checkpoint.notes
    average = Snapshot.read(learned).average
    assert all(torch.equal(value, average[name]) for name, value in checkpoint.state.items())
    again = evaluate_model(checkpoint.build(), checkpoint.config, data.annotations, data.frames)
    (validation,) = records(learned, "validation")
    assert again.ap == pytest.approx(validation["validation"]["ap"])
    assert export_checkpoint(checkpoint, tmp_path / "bundle", ExportOptions()).passed


def test_a_worker_reads_the_same(data: Data, tmp_path: Path, log_every_step: None) -> None:
    options = replace(OPTIONS, iterations=2)
    for workers in (0, 1):
        run_in(tmp_path / str(workers), data, new_run(options), num_workers=workers)
    assert losses(tmp_path / "0") == losses(tmp_path / "1")
    assert_same_tensors(tmp_path / "0" / "state.pth", tmp_path / "1" / "state.pth")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_frame_that_cannot_be_read_is_one_line(tmp_path: Path, workers: int) -> None:
    annotations, frames = read_clips(tmp_path)
    for path in frames.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(InputError) as caught:
        run_in(tmp_path / "run", Data(annotations, frames), new_run(), num_workers=workers)
    assert "cannot be read as a picture, or is cut off" in str(caught.value)


@pytest.mark.parametrize(("option", "is_trained", "freeze"), [
    (None, True, True), (None, False, False), (True, False, True), (False, True, False),
])
def test_norms_are_frozen_where_training_starts_from_a_checkpoint(
    data: Data, tmp_path: Path, option: bool | None, is_trained: bool, freeze: bool
) -> None:
    start = run_in(tmp_path, data, new_run(replace(OPTIONS, iterations=2, freeze_norms=option), is_trained=is_trained))
    before = from_scratch(CONFIG)
    norms = {name for name, module in before.named_modules() if isinstance(module, nn.BatchNorm2d)}
    changed = {name for name, value in start.model.state_dict().items()
               if not torch.equal(value, before.state_dict()[name])}
    of_norms = {name for name in before.state_dict() if name.rsplit(".", 1)[0] in norms}
    assert (changed & of_norms == set()) if freeze else (of_norms <= changed)
    assert {"backbone.conv1.weight", "fpn.lat_layers.0.bias", "TemporalNet.fc.weight"} <= changed
    average = load_checkpoint(tmp_path / "model.pth").state
    assert all(torch.equal(average[name], before.state_dict()[name]) for name in of_norms) is freeze


def test_the_log_tells_losses_and_rates(data: Data, tmp_path: Path, log_every_step: None) -> None:
    weights = LossWeights(classes=2.0, boxes=0.0, overlap=0.5, centerness=3.0, masks=1.0, embeddings=0.25,
                          box_shift=0.1, mask_shift=4.0)
    options = replace(OPTIONS, weights=weights)
    lines: list[str] = []
    run_in(tmp_path, data, new_run(options), say=lines.append)
    for iteration, found in losses(tmp_path):
        total = sum(getattr(weights, name) * value for name, value in found.items() if name != "total")
        assert found["total"] == pytest.approx(total, abs=1e-3), iteration
    rates = [record["rate"] for record in records(tmp_path, "rate")]
    assert rates == pytest.approx([options.learning_rate * options.rate(iteration) for iteration in range(6)])
    assert "2 classes; 8 annotated frames in 2 videos; 1 x cpu, f32" in lines[0]
    assert len(lines) == 1 + 6 and lines[-1].startswith("     6  total ")


def test_validation_sees_the_average_in_between_and_at_the_end(data: Data, tmp_path: Path) -> None:
    seen: list[tuple[bool, ModelConfig]] = []

    def validate(model: STMask, config: ModelConfig) -> tuple[dict[str, Any], str]:
        seen.append((model.training, config))
        return {"ap": len(seen)}, f"AP {len(seen)}"

    options, lines = replace(OPTIONS, iterations=5, pairs_per_batch=1, validate_every=2, save_every=3), []
    log = TrainingLog(tmp_path, lines.append)
    trainer = Trainer(from_scratch(CONFIG), CONFIG, options, tmp_path, ALONE, log, freeze_norms=False,
                      validate=validate)
    trainer.run(PairDataset(data.annotations, data.frames, CONFIG, 5))
    assert [record["iteration"] for record in records(tmp_path, "validation")] == [2, 4, 5]
    assert seen == [(False, CONFIG)] * 3 and lines[0] == "     2  AP 1"
    assert trainer.iteration == 5


@pytest.mark.parametrize(("loss", "message"), [
    (lambda probs, _classes: probs.sum() * float("nan"), r"iteration 0: a loss is not finite \(classes nan, .*--rate"),
    (lambda probs, _classes: (probs.sum() * 0).sqrt(), r"iteration 0: a loss is not finite \(gradients nan\)"),
])
def test_nonsense_ends_the_run_before_it_spoils_the_network(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loss: Any, message: str
) -> None:
    monkeypatch.setattr("stmask_deploy.training.learner.class_loss", loss)
    start = new_run()
    with pytest.raises(StmaskError, match=message) as caught:
        run_in(tmp_path, data, start)
    assert caught.value.exit_code == 1
    assert not (tmp_path / "state.pth").exists()
    before = from_scratch(CONFIG).state_dict()
    assert all(torch.equal(value, before[name]) for name, value in start.model.named_parameters())


def test_classes_of_the_validation(data: Data, tmp_path: Path) -> None:
    other = Data.open(write_clips(tmp_path, names=("box", "ball")), None)
    with pytest.raises(InputError, match=r"the classes of .* \(box, ball\) are not those of .* \(box, disc\)"):
        run_in(tmp_path / "run", data, new_run(), validation=other)
    Data.open(write_clips(tmp_path / "same", names=("Box", "DISC")), None).check_classes(data)


@pytest.mark.parametrize("precision, device, capability, is_told", [
    ("bf16", "cpu", "AVX2", True), ("bf16", "cpu", "AVX512", False), ("bf16", "cpu", "SVE256", False),
    ("f32", "cpu", "AVX2", False), ("bf16", "cuda:0", "AVX2", False)])
def test_slow_bf16_is_told(precision: str, device: str, capability: str, is_told: bool, tmp_path: Path, data: Data,
                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(Trainer, "__init__", lambda *_args, **_kwargs: None)
    monkeypatch.setattr(Trainer, "run", lambda *_args: None)
    process = Process(0, 1, device)
    said: list[str] = []
    train(new_run(replace(OPTIONS, precision=precision)), data, None, tmp_path, process, say=said.append)
    assert any("--precision f32" in line for line in said) == is_told


@pytest.mark.parametrize("failure", ["frame", "loss"])
def test_an_earlier_run_is_lost_once_a_step_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                    failure: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    earlier = {name: b"earlier" for name in FILES}
    for name, content in earlier.items():
        (run / name).write_bytes(content)
    data = Data.open(write_clips(tmp_path / "clips"), None)
    frames = list((tmp_path / "clips").rglob("*.png"))
    before = [frame.read_bytes() for frame in frames]
    with monkeypatch.context() as patch:
        if failure == "frame":
            for frame in frames:
                frame.write_bytes(b"broken")
        else:
            patch.setattr(PairLearner, "forward", lambda *_: {"boxes": torch.tensor(float("nan"))})
        with pytest.raises(StmaskError, match="cannot be read" if failure == "frame" else "a loss is not finite"):
            run_in(run, data, new_run(replace(OPTIONS, iterations=2)))
    assert {path.name: path.read_bytes() for path in run.iterdir()} == earlier
    for frame, content in zip(frames, before, strict=True):
        frame.write_bytes(content)
    run_in(run, data, new_run(replace(OPTIONS, iterations=2)))
    assert Snapshot.read(run).iteration == 2 and b"earlier" not in (run / "log.jsonl").read_bytes()
    assert "million parameters" in records(run, "note")[0]["note"]  # from before the first step


def test_a_step_replaces_an_earlier_run_before_anything_is_saved(data: Data, tmp_path: Path,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FILES:
        (tmp_path / name).write_bytes(b"earlier")
    forward, calls = PairLearner.forward, count()
    monkeypatch.setattr(PairLearner, "forward", lambda self, batch: forward(self, batch) if next(calls) == 0 else {
        "boxes": torch.tensor(float("nan"))})
    with pytest.raises(StmaskError, match="iteration 1: a loss is not finite"):
        run_in(tmp_path, data, new_run(replace(OPTIONS, iterations=3)))
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"] and len(records(tmp_path, "note")) == 1


def test_a_loss_of_weight_zero_cannot_spoil_the_others(data: Data, tmp_path: Path,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    forward = PairLearner.forward

    def spoilt(self: PairLearner, batch: Any) -> dict[str, Any]:
        losses = forward(self, batch)
        return {**losses, "boxes": losses["boxes"] * float("inf")}

    monkeypatch.setattr(PairLearner, "forward", spoilt)
    run_in(tmp_path / "kept", data, new_run(replace(OPTIONS, iterations=2, weights=LossWeights(boxes=0.0))))
    with pytest.raises(StmaskError, match="boxes"):
        run_in(tmp_path / "spoilt", data, new_run(replace(OPTIONS, iterations=2)))


def test_a_run_that_would_learn_nothing() -> None:
    nothing = LossWeights(**dict.fromkeys((field.name for field in fields(LossWeights)), 0.0))
    for weights, config in ((nothing, CONFIG), (replace(nothing, box_shift=1.0), replace(CONFIG, temporal=None))):
        with pytest.raises(InputError, match="every loss of this network has weight 0"):
            new_run(replace(OPTIONS, weights=weights), config)
    new_run(replace(OPTIONS, weights=replace(nothing, box_shift=1.0)))


def test_a_network_that_pytorch_cannot_train() -> None:
    """With fewer channels the process would die."""
    narrow = replace(CONFIG, widths=(3, *CONFIG.widths[1:]))
    with pytest.raises(InputError, match="widths starts with 3; .* at least 4 channels"):
        new_run(config=narrow)
    new_run(config=replace(CONFIG, widths=(4, *CONFIG.widths[1:])))
