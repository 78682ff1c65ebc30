"""Snapshots: everything that went in comes out again, and damaged files are named."""
from __future__ import annotations

import errno
import io
import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_training import CALIBRATED, OPTIONS

from stmask_deploy.errors import InputError, OutputError
from stmask_deploy.models.checkpoint import load_checkpoint
from stmask_deploy.training.optimizer import make_optimizer
from stmask_deploy.training.snapshot import Snapshot, write_model
from stmask_deploy.training.weights import from_scratch


def snapshot() -> Snapshot:
    model, average = from_scratch(CALIBRATED, 1), from_scratch(CALIBRATED, 2)
    optimizer = make_optimizer(model, OPTIONS)
    for value in model.parameters():
        value.grad = torch.ones_like(value)
    optimizer.step()
    return Snapshot(12, CALIBRATED, replace(OPTIONS, iterations=20), model.state_dict(), average.state_dict(), 11,
                    optimizer.state_dict(), True, num_processes=1, validation=("val.json", "frames"), seconds=12.5,
                    losses={"sums": {"total": torch.tensor(3.0)}, "count": 2, "seconds": 1.5}, data="fingerprint")


def test_written_and_read(tmp_path: Path) -> None:
    before = snapshot()
    before.write(tmp_path)
    after = Snapshot.read(tmp_path)
    for name in ("iteration", "config", "options", "num_updates", "is_trained", "num_processes", "validation",
                 "seconds", "losses", "data"):
        assert getattr(after, name) == getattr(before, name)
    for name in ("weights", "average"):
        found, expected = getattr(after, name), getattr(before, name)
        assert list(found) == list(expected)
        assert all(torch.equal(value, expected[key]) for key, value in found.items())
    model = from_scratch(after.config)
    optimizer = make_optimizer(model, after.options)
    optimizer.load_state_dict(dict(after.optimizer))
    moments = optimizer.state[next(model.parameters())]
    assert float(moments["step"]) == 1 and bool((moments["exp_avg"] != 0).all())


@pytest.mark.parametrize("missing", [field.name for field in fields(Snapshot)])
def test_one_that_lacks_something(tmp_path: Path, missing: str) -> None:
    snapshot().write(tmp_path)
    values = torch.load(tmp_path / "state.pth", weights_only=True)
    torch.save({key: value for key, value in values.items() if key != missing}, tmp_path / "state.pth")
    with pytest.raises(InputError, match="state.pth is damaged or not a training state"):
        Snapshot.read(tmp_path)


def test_a_later_one_takes_its_place(tmp_path: Path) -> None:
    snapshot().write(tmp_path)
    Snapshot(**{**vars(snapshot()), "iteration": 13}).write(tmp_path)
    assert Snapshot.read(tmp_path).iteration == 13
    assert [path.name for path in tmp_path.iterdir()] == ["state.pth"]


@pytest.mark.parametrize("content", [
    b"", b"no state", {"iteration": 3}, {"iteration": 3, "config": {"class_names": ["a"]}, "options": {}},
])
def test_damaged(tmp_path: Path, content: object) -> None:
    if isinstance(content, bytes):
        (tmp_path / "state.pth").write_bytes(content)
    else:
        torch.save(content, tmp_path / "state.pth")
    with pytest.raises(InputError, match=r"state\.pth is damaged or not a training state .* without --resume"):
        Snapshot.read(tmp_path)


def test_cut_off(tmp_path: Path) -> None:
    snapshot().write(tmp_path)
    path = tmp_path / "state.pth"
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(InputError, match="damaged"):
        Snapshot.read(tmp_path)


def test_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"state\.pth does not exist: there is no training to resume"):
        Snapshot.read(tmp_path)


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        snapshot().write(tmp_path / "none")
    with pytest.raises(OutputError):
        write_model(tmp_path / "none", from_scratch(CALIBRATED), CALIBRATED)


def test_models_are_plain_checkpoints(tmp_path: Path) -> None:
    model = from_scratch(CALIBRATED, 3).to(memory_format=torch.channels_last)  # as training holds it
    path = write_model(tmp_path, model, CALIBRATED)
    content = torch.load(path, weights_only=True)
    assert set(content) == {"state_dict", "stmask_config"}
    assert json.loads(json.dumps(content["stmask_config"])) == json.loads(json.dumps(CALIBRATED.to_dict()))
    assert all(value.is_contiguous() and not value.requires_grad for value in content["state_dict"].values())
    checkpoint = load_checkpoint(path)
    assert checkpoint.config == CALIBRATED
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in checkpoint.state.items())


@pytest.mark.parametrize("change", [
    {"iteration": 1.5}, {"iteration": -1}, {"iteration": 21}, {"weights": None}, {"optimizer": []}, {"validation": "x"},
    {"validation": ("a", 1)}, {"is_trained": "yes"}, {"num_processes": 0}, {"seconds": None}, {"data": 3},
    {"options": 7},
], ids=str)
def test_values_that_cannot_be(tmp_path: Path, change: dict[str, Any]) -> None:
    snapshot().write(tmp_path)
    values = torch.load(tmp_path / "state.pth", weights_only=True)
    torch.save({**values, **change}, tmp_path / "state.pth")
    with pytest.raises(InputError):
        Snapshot.read(tmp_path)


def test_one_that_may_not_be_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    snapshot().write(tmp_path)
    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(InputError, match=r"state.pth cannot be read \(Permission denied\); check"):
        Snapshot.read(tmp_path)


def test_a_folder_one_may_not_enter(shut_folder: Path) -> None:
    with pytest.raises(InputError, match="no training to resume"):
        Snapshot.read(shut_folder / "run")


def test_nothing_is_loaded_by_a_torch_that_may_run_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot().write(tmp_path)
    monkeypatch.setattr(torch, "__version__", "2.5.0")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(InputError, match="install torch >= 2.10"):
        Snapshot.read(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9])
def test_a_disk_that_fills_up_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float) -> None:
    """torch has an error of its own for that, which says nothing."""
    whole = snapshot()
    whole.write(tmp_path)
    size = (tmp_path / "state.pth").stat().st_size

    class Full(io.RawIOBase):
        left = int(share * size)

        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            Full.left -= len(data)
            if Full.left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return len(data)

    monkeypatch.setattr("stmask_deploy.atomic.open", lambda *_: io.BufferedWriter(Full()), raising=False)
    with pytest.raises(OutputError, match="No space left on device; free some space"):
        whole.write(tmp_path)
    Full.left = int(share * size / 4)
    with pytest.raises(OutputError, match="No space left on device; free some space"):
        write_model(tmp_path, from_scratch(CALIBRATED, 1), CALIBRATED)
