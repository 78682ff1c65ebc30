"""The training loop: it learns, it can be interrupted, it freezes what it shall, and it stops at nonsense."""
from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import ALONE, CALIBRATED, CONFIG, OPTIONS, read_clips, write_clips
from torch import Tensor, nn

from stmask_deploy.config import ModelConfig
from stmask_deploy.errors import InputError, StmaskError
from stmask_deploy.export.exporter import ExportOptions, export_checkpoint
from stmask_deploy.models.checkpoint import load_checkpoint
from stmask_deploy.models.stmask import STMask
from stmask_deploy.training import trainer as trainer_module
from stmask_deploy.training.log import TrainingLog
from stmask_deploy.training.options import LossWeights, TrainingOptions
from stmask_deploy.training.pairs import PairDataset
from stmask_deploy.training.processes import Process
from stmask_deploy.training.run import Data, Start, resume_run, train
from stmask_deploy.training.snapshot import Snapshot
from stmask_deploy.training.trainer import Batches, Trainer, make_optimizer
from stmask_deploy.training.validation import evaluate_model
from stmask_deploy.training.weights import from_scratch


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return Data.open(write_clips(tmp_path_factory.mktemp("clips")), None)


@pytest.fixture
def log_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "LOG_EVERY", 1)


def new_run(options: TrainingOptions = OPTIONS, config: ModelConfig = CONFIG, is_trained: bool = False) -> Start:
    return Start(from_scratch(config), config, options, is_trained, ())


def run_in(folder: Path, data: Data, start: Start, **others: Any) -> Start:
    """Train in a new folder; returns `start`, whose model has learned."""
    folder.mkdir(exist_ok=True)
    train(start, data, others.pop("validation", None), folder, ALONE, **others)
    return start


def records(folder: Path, key: str) -> list[dict[str, Any]]:
    """The log's records that have this key."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if key in line]


def losses(folder: Path) -> list[tuple[int, dict[str, float]]]:
    return [(record["iteration"], record["losses"]) for record in records(folder, "losses")]


def tensors(value: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in nested mappings and lists, with their places."""
    if isinstance(value, Tensor):
        yield prefix, value
    elif isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            yield from tensors(one, f"{prefix}.{key}")


def assert_same_tensors(path: Path, other: Path) -> None:
    found, expected = (dict(tensors(torch.load(one, weights_only=True))) for one in (path, other))
    assert found.keys() == expected.keys() and len(found) > 50
    assert [name for name, value in found.items() if not torch.equal(value, expected[name])] == []


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


@pytest.fixture(scope="module")
def uninterrupted(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(trainer_module, "LOG_EVERY", 1)
        run_in(folder, data, new_run(config=CALIBRATED))
    return folder


def press_in_step(monkeypatch: pytest.MonkeyPatch, step: int, times: int) -> None:
    """Ctrl-C after the gradients of a step are known, before they are used."""
    clip, calls = nn.utils.clip_grad_norm_, []

    def pressed(*arguments: Any) -> Tensor:
        calls.append(step)
        for _ in range(times if len(calls) == step else 0):
            signal.raise_signal(signal.SIGINT)
        return clip(*arguments)

    monkeypatch.setattr(nn.utils, "clip_grad_norm_", pressed)


def press_while_reading(monkeypatch: pytest.MonkeyPatch, index: int) -> None:
    read = PairDataset.__getitem__

    def interrupted(self: PairDataset, asked: int) -> Any:
        if asked == index:
            raise KeyboardInterrupt
        return read(self, asked)

    monkeypatch.setattr(PairDataset, "__getitem__", interrupted)


@pytest.mark.parametrize(("case", "done"), [("while reading", 3), ("in a step", 4), ("twice in a step", 2)])
def test_an_interrupted_run_goes_on_as_if_nothing_had_been(
    data: Data, uninterrupted: Path, tmp_path: Path, case: str, done: int, log_every_step: None, usual_interrupt: None
) -> None:
    options = replace(OPTIONS, save_every=2)
    with pytest.MonkeyPatch.context() as monkeypatch:
        if case == "while reading":
            press_while_reading(monkeypatch, 6)
        else:
            press_in_step(monkeypatch, 4, times=2 if case.startswith("twice") else 1)
        with pytest.raises(KeyboardInterrupt):
            run_in(tmp_path, data, new_run(options, CALIBRATED))
    assert Snapshot.read(tmp_path).iteration == done
    assert load_checkpoint(tmp_path / "model.pth").config == CALIBRATED
    resumed = resume_run(tmp_path, data.class_names)
    assert resumed.options == options and f"resumed after iteration {done}" in resumed.notes
    torch.rand(5)  # other random numbers were drawn in between
    run_in(tmp_path, data, resumed)
    found, expected = losses(tmp_path), losses(uninterrupted)
    assert found[-(6 - done):] == expected[-(6 - done):] and len(expected) == 6
    for name in ("model.pth", "state.pth"):
        assert_same_tensors(tmp_path / name, uninterrupted / name)


class Validation:
    """Stands for an evaluation that ends with `error` the first time."""

    def __init__(self, error: type[BaseException] | None = None) -> None:
        self._error, self.calls = error, 0

    def __call__(self, *_arguments: Any) -> Any:
        self.calls += 1
        if self._error is not None and self.calls == 1:
            raise self._error("no picture")
        return Scores()


class Scores:
    def to_dict(self) -> dict[str, Any]:
        return {"ap": 1.0}

    def summary(self) -> str:
        return "AP 1.0"


def put_validation(monkeypatch: pytest.MonkeyPatch, error: type[BaseException] | None = None) -> Validation:
    validation = Validation(error)
    monkeypatch.setattr("stmask_deploy.training.run.evaluate_model", validation)
    return validation


def validated(folder: Path) -> list[int]:
    return [record["iteration"] for record in records(folder, "validation")]


@pytest.mark.parametrize("every", [4, 1000])  # in between and at the end; at the end alone
@pytest.mark.parametrize("error", [InputError, RuntimeError, KeyboardInterrupt])
def test_a_validation_that_fails_costs_no_step_and_is_made_up_for(
    data: Data, uninterrupted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException],
    every: int
) -> None:
    validation = put_validation(monkeypatch, error)
    options = replace(OPTIONS, validate_every=every)
    with pytest.raises(error):
        run_in(tmp_path, data, new_run(options, CALIBRATED), validation=data)
    due = min(every, 6)
    assert Snapshot.read(tmp_path).iteration == due and validated(tmp_path) == []
    assert load_checkpoint(tmp_path / "model.pth").config == CALIBRATED
    run_in(tmp_path, data, resume_run(tmp_path, data.class_names), validation=data)
    assert validated(tmp_path) == sorted({due, 6}) and validation.calls == 1 + len({due, 6})
    assert_same_tensors(tmp_path / "model.pth", uninterrupted / "model.pth")
    run_in(tmp_path, data, resume_run(tmp_path, data.class_names), validation=data)  # done already
    assert validated(tmp_path) == sorted({due, 6})


def test_what_was_learned_before_a_frame_that_cannot_be_read_is_kept(data: Data, tmp_path: Path,
                                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    read = PairDataset.__getitem__

    def broken(self: PairDataset, asked: int) -> Any:
        if asked == 5:
            raise InputError("no picture")
        return read(self, asked)

    monkeypatch.setattr(PairDataset, "__getitem__", broken)
    with pytest.raises(InputError, match="no picture"):
        run_in(tmp_path, data, new_run())
    assert Snapshot.read(tmp_path).iteration == 2


def test_a_resumed_run_logs_what_an_uninterrupted_one_does(data: Data, tmp_path: Path, usual_interrupt: None,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "LOG_EVERY", 4)
    run_in(tmp_path / "whole", data, new_run())
    with pytest.MonkeyPatch.context() as pressed, pytest.raises(KeyboardInterrupt):
        press_in_step(pressed, 3, times=1)
        run_in(tmp_path / "parts", data, new_run())
    path = tmp_path / "parts" / "state.pth"
    state = torch.load(path, weights_only=True)
    assert 0 < state["losses"]["seconds"] <= state["seconds"] < 100
    torch.save({**state, "seconds": 1000.0}, path)
    run_in(tmp_path / "parts", data, resume_run(tmp_path / "parts", data.class_names))
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")
    assert [iteration for iteration, _ in losses(tmp_path / "parts")] == [4, 6]
    assert all(1000 <= record["seconds"] < 1100 for record in records(tmp_path / "parts", "losses"))


def test_the_step_in_which_ctrl_c_was_pressed_is_logged(data: Data, tmp_path: Path, log_every_step: None,
                                                        usual_interrupt: None) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch, pytest.raises(KeyboardInterrupt):
        press_in_step(monkeypatch, 3, times=1)
        run_in(tmp_path, data, new_run())
    assert [iteration for iteration, _ in losses(tmp_path)] == [1, 2, 3]


def test_a_validation_is_no_part_of_the_pairs_a_second(data: Data, tmp_path: Path, log_every_step: None,
                                                       monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        now = 0.0

        def monotonic(self) -> float:
            return self.now

    clock, step = Clock(), Trainer._step

    def timed(self: Trainer, batch: Any) -> Any:
        clock.now += 4
        return step(self, batch)

    def slow(*_arguments: Any) -> Scores:
        clock.now += 1000
        return Scores()

    monkeypatch.setattr(trainer_module, "LOG_EVERY", 2)
    monkeypatch.setattr("stmask_deploy.training.loss_means.time", clock)
    monkeypatch.setattr(Trainer, "_step", timed)
    monkeypatch.setattr("stmask_deploy.training.run.evaluate_model", slow)
    run_in(tmp_path, data, new_run(replace(OPTIONS, validate_every=3)), validation=data)
    assert validated(tmp_path) == [3, 6]  # the first within the second record
    assert [record["pairs_per_s"] for record in records(tmp_path, "losses")] == [0.5] * 3


def test_a_finished_run_resumes_to_itself(data: Data, uninterrupted: Path, tmp_path: Path) -> None:
    (tmp_path / "state.pth").write_bytes((uninterrupted / "state.pth").read_bytes())
    run_in(tmp_path, data, resume_run(tmp_path, data.class_names))
    assert_same_tensors(tmp_path / "state.pth", uninterrupted / "state.pth")


def test_resuming_on_other_classes(uninterrupted: Path) -> None:
    with pytest.raises(InputError, match="learns the classes box, disc, the dataset has box, ball"):
        resume_run(uninterrupted, ("box", "ball"))


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
    assert str(caught.value).endswith("cannot be read as a picture") and "\n" not in str(caught.value)


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


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_biases_and_norms_do_not_decay(optimizer: str) -> None:
    model = from_scratch(CALIBRATED)
    model.backbone.bn1.requires_grad_(False)
    decays = {id(value): group["weight_decay"]
              for group in make_optimizer(model, replace(OPTIONS, optimizer=optimizer)).param_groups
              for value in group["params"]}
    norms = {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    for name, value in model.named_parameters():
        owner, kind = name.rsplit(".", 1)
        if owner == "backbone.bn1":
            assert id(value) not in decays
        else:
            assert decays[id(value)] == (0 if kind == "bias" or owner in norms else OPTIONS.weight_decay), name


@pytest.mark.parametrize("start", [0, 3])
def test_batches_share_the_samples_out(start: int) -> None:
    processes = [list(Batches(start, 5, 2, Process(rank, 3, "cpu"))) for rank in range(3)]
    assert all(len(batches) == 5 - start == len(Batches(start, 5, 2, ALONE)) for batches in processes)
    in_order = [index for iteration in zip(*processes, strict=True) for batch in iteration for index in batch]
    assert in_order == list(range(start * 6, 30))


def test_nothing_is_left_of_a_finished_schedule() -> None:
    assert list(Batches(5, 5, 2, ALONE)) == [] and len(Batches(5, 5, 2, ALONE)) == 0


def test_a_run_goes_on_with_as_many_processes(data: Data, tmp_path: Path) -> None:
    run_in(tmp_path, data, new_run(replace(OPTIONS, iterations=2)))
    snapshot = Snapshot.read(tmp_path)
    start = Start(from_scratch(CONFIG), CONFIG, snapshot.options, False, (), replace(snapshot, num_processes=2))
    with pytest.raises(InputError, match="trained by 2 processes, now there are 1; resume with as many"):
        train(start, data, None, tmp_path, ALONE)


@pytest.mark.parametrize("precision, device, capability, is_told", [
    ("bf16", "cpu", "AVX2", True), ("bf16", "cpu", "AVX512", False), ("bf16", "cpu", "SVE256", False),
    ("f32", "cpu", "AVX2", False), ("bf16", "cuda:0", "AVX2", False)])
def test_slow_bf16_is_told(precision: str, device: str, capability: str, is_told: bool, tmp_path: Path, data: Data,
                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(Trainer, "__init__", lambda *_args, **_kwargs: None)
    monkeypatch.setattr(Trainer, "run", lambda *_args: None)
    process = Process(0, 1, device)
    train(new_run(replace(OPTIONS, precision=precision)), data, None, tmp_path, process)
    assert any("--precision f32" in record["note"] for record in records(tmp_path, "note")) == is_told
