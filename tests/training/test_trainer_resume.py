"""A run that is interrupted or fails loses no step, and goes on as if nothing had been."""
from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import assert_same_tensors, losses, new_run, records, run_in
from tiny_training import ALONE, CALIBRATED, CONFIG, OPTIONS
from torch import Tensor, nn

from stmask_deploy.errors import InputError
from stmask_deploy.models.checkpoint import load_checkpoint
from stmask_deploy.training import trainer as trainer_module
from stmask_deploy.training.data import Data
from stmask_deploy.training.pairs import PairDataset
from stmask_deploy.training.run import Start, resume_run, train
from stmask_deploy.training.snapshot import Snapshot
from stmask_deploy.training.trainer import Trainer
from stmask_deploy.training.weights import from_scratch


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


def test_a_run_goes_on_with_as_many_processes(data: Data, tmp_path: Path) -> None:
    run_in(tmp_path, data, new_run(replace(OPTIONS, iterations=2)))
    snapshot = Snapshot.read(tmp_path)
    start = Start(from_scratch(CONFIG), CONFIG, snapshot.options, False, (), replace(snapshot, num_processes=2))
    with pytest.raises(InputError, match="trained by 2 processes, now there are 1; resume with as many"):
        train(start, data, None, tmp_path, ALONE)


def test_a_run_goes_on_with_its_own_data(data: Data, tmp_path: Path) -> None:
    run_in(tmp_path, data, new_run(replace(OPTIONS, iterations=2)))
    tracks = data.annotations.tracks
    mask = tracks[0].segmentations[0]
    assert mask is not None
    moved = replace(tracks[0], segmentations=(tracks[1].segmentations[0], *tracks[0].segmentations[1:]))
    for changed in (tracks[:-1], (moved, *tracks[1:]), (replace(tracks[0], is_crowd=True), *tracks[1:])):
        other = replace(data, annotations=replace(data.annotations, tracks=changed))
        with pytest.raises(InputError, match="learns from another dataset than .* the one it was started with"):
            run_in(tmp_path, other, resume_run(tmp_path, data.class_names))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_an_optimizer_state_that_does_not_fit(data: Data, tmp_path: Path, optimizer: str) -> None:
    """PyTorch would take it, and fail in the first step or go on with other settings."""
    run_in(tmp_path, data, new_run(replace(OPTIONS, iterations=2, optimizer=optimizer)))
    state = torch.load(tmp_path / "state.pth", weights_only=True)
    first, *others = state["optimizer"]["param_groups"]
    number, values = next(iter(state["optimizer"]["state"].items()))
    name = next(name for name, value in values.items() if isinstance(value, torch.Tensor) and value.ndim)
    for changed in (
        {"param_groups": [{**first, "weight_decay": 0.3}, *others]},
        {"param_groups": [{**first, "momentum": None, "betas": None}, *others]},
        {"param_groups": [{key: first[key] for key in ("params", "lr", "weight_decay")}, *others]},
        {"param_groups": [first]},
        {"state": {**state["optimizer"]["state"], number: {**values, name: torch.zeros(0)}}},
    ):
        torch.save({**state, "optimizer": {**state["optimizer"], **changed}}, tmp_path / "state.pth")
        with pytest.raises(InputError, match="state.pth is damaged or not a training state"):
            run_in(tmp_path, data, resume_run(tmp_path, data.class_names))
    groups = [{**group, "of_a_later_pytorch": True} for group in (first, *others)]
    torch.save({**state, "optimizer": {**state["optimizer"], "param_groups": groups}}, tmp_path / "state.pth")
    run_in(tmp_path, data, resume_run(tmp_path, data.class_names))


@pytest.mark.parametrize("change", [{"weights": {}}, {"average": {"x": torch.zeros(1)}}, {"optimizer": {}},
                                    {"losses": {"sums": {"total": 3}}}], ids=lambda change: next(iter(change)))
def test_a_state_that_does_not_fit(data: Data, tmp_path: Path, change: dict[str, Any]) -> None:
    run_in(tmp_path, data, new_run(replace(OPTIONS, iterations=2)))
    state = torch.load(tmp_path / "state.pth", weights_only=True)
    torch.save({**state, **change}, tmp_path / "state.pth")
    with pytest.raises(InputError, match="state.pth is damaged or not a training state"):
        run_in(tmp_path, data, resume_run(tmp_path, data.class_names))
