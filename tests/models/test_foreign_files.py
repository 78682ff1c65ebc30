"""Files that are no checkpoints, are damaged, or would run code: each is refused with one message."""
from __future__ import annotations

import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from refusals import refuse
from safetensors.torch import save as safetensors_bytes
from safetensors.torch import save_file
from tiny_models import CONFIG, random_model, state_of

from stmask_deploy.errors import InputError
from stmask_deploy.models import torch_file
from stmask_deploy.models.checkpoint import load_checkpoint

STATE = state_of(CONFIG)
INFERRED = replace(CONFIG, input_size=(360, 640))  # tensors do not show the input size
WEIGHT, BIAS = "proto_net.0.weight", "proto_net.0.bias"

pytestmark = pytest.mark.usefixtures("no_warnings")


@pytest.mark.parametrize("content", [
    pytest.param(b"", id="empty"), pytest.param(b"weights go here\n", id="text"),
    pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(200), id="picture"), pytest.param(bytes(1000), id="zeros"),
    pytest.param(b"PK\x03\x04" + bytes(100), id="start of a zip"),
    pytest.param(b"<!DOCTYPE html><html>Quota exceeded</html>", id="a download page"),
    pytest.param(pickle.dumps({"a": 1}), id="a pickle of something else"),
    pytest.param(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n", id="pointer file"),
])
@pytest.mark.parametrize("name", ["model.pth", "model.safetensors"])
def test_not_a_checkpoint(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert len(refuse(tmp_path / name).splitlines()) == 1


@pytest.mark.parametrize("content, message", [
    (b"<!DOCTYPE html><html>Quota exceeded</html>", "is not a checkpoint but a web page; download it again"),
    (b"\x89PNG\r\n\x1a\n", "is not a checkpoint; download it again"),
    (b"PK\x03\x04" + bytes(100), "is damaged or"),
    (pickle.dumps({"a": b"x" * 99})[:40], "is damaged or"),
    (safetensors_bytes(STATE), "is a safetensors file; rename it to model.safetensors"),
])
def test_what_it_is_instead_and_not_how_to_switch_safety_off(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "model.pth").write_bytes(content)
    said = refuse(tmp_path / "model.pth")
    assert message in said and "weights_only" not in said and "torch.load" not in said


def test_torch_scripts(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        torch.jit.script(torch.nn.ReLU()).save(tmp_path / "model.pth")
    assert "is a TorchScript archive" in refuse(tmp_path / "model.pth")


def test_zip_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    refuse(tmp_path / "model.pth")


def test_not_a_file(tmp_path: Path) -> None:
    assert "does not exist" in refuse(tmp_path / "missing.pth")
    assert "is a folder" in refuse(tmp_path)


def test_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_args: Any, **_kwargs: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", denied)
    assert "Permission denied" in refuse(tmp_path / "model.pth")


@pytest.mark.parametrize("content, message", [
    ({}, "holds no parameters"), ([STATE[BIAS]], "found list"), (STATE[BIAS], "found Tensor"), (7, "found int"),
    ({"state_dict": {}}, "holds no parameters"), ({**STATE, "epoch": 3}, "entries that are not tensors: epoch"),
    ({"optimizer": {"lr": 0.1}, "epoch": 3, "a": 1, "b": 2, "c": 3, "d": 4}, "..."),
    ({1: STATE[BIAS]}, "no parameters named"),
])
def test_pickles_of_something_else(save: Callable[..., Path], content: Any, message: str) -> None:
    assert message in refuse(save(content))


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.99, 0.9999])
def test_truncated(save: Callable[..., Path], share: float, legacy: bool) -> None:
    path = save(STATE, _use_new_zipfile_serialization=not legacy)
    content = path.read_bytes()
    path.write_bytes(content[:int(len(content) * share)])
    assert len(refuse(path).splitlines()) == 1


@pytest.mark.parametrize("share", [0.001, 0.3, 0.99])
def test_truncated_safetensors(tmp_path: Path, share: float) -> None:
    path = tmp_path / "model.safetensors"
    save_file(STATE, path)
    content = path.read_bytes()
    path.write_bytes(content[:int(len(content) * share)])
    assert "safetensors" in refuse(path)


def test_flipped_bytes_are_refused_or_harmless(save: Callable[..., Path]) -> None:
    path = save(STATE)
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(content), 60):
        damaged = content.copy()
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        try:
            load_checkpoint(path)  # damage inside a value is another value
        except InputError:
            continue


def test_another_weight_by_damage_is_noticed(save: Callable[..., Path]) -> None:
    path = save(STATE)
    with zipfile.ZipFile(path) as archive:
        largest = max(archive.infolist(), key=lambda entry: entry.file_size)
    content = bytearray(path.read_bytes())
    content[largest.header_offset + 200 + largest.file_size // 2] ^= 1
    path.write_bytes(content)
    assert "is damaged or is not a checkpoint; download it again" in refuse(path)


def test_files_without_checksums_are_read(save: Callable[..., Path]) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        path = save(STATE)
    finally:
        torch.serialization.set_crc32_options(True)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip()
    assert load_checkpoint(path).state


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.pth")
    assert "is not a file; give the checkpoint file" in refuse(tmp_path / "model.pth")


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


@pytest.mark.parametrize("form", ["zip", "legacy", "plain pickle", "beside the weights"])
def test_code_is_not_run(save: Callable[..., Path], tmp_path: Path, form: str) -> None:
    canary = tmp_path / "canary"
    evil = Evil(f"touch {canary}")
    if form == "plain pickle":
        path = tmp_path / "model.pth"
        path.write_bytes(pickle.dumps(evil))
    else:
        content = {"state_dict": STATE, "extra": evil} if form == "beside the weights" else evil
        path = save(content, _use_new_zipfile_serialization=form != "legacy")
    assert "never run" in refuse(path)
    assert not canary.exists()


def test_canary_would_sing(save: Callable[..., Path], tmp_path: Path) -> None:
    path = save(Evil(f"touch {tmp_path / 'canary'}"))
    torch.load(path, weights_only=False)
    assert (tmp_path / "canary").exists()


def test_whole_pickled_module(save: Callable[..., Path]) -> None:
    message = refuse(save(random_model(CONFIG)))
    assert "objects other than tensors" in message and "stmask_deploy.models" in message


def test_floor_on_torch(save: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(STATE)
    for version, taken in (("2.9.1+cpu", False), ("1.13.0", False), ("2.10.0", True), ("2.13.0a0+git1", True),
                           ("3.0.0", True)):
        monkeypatch.setattr(torch, "__version__", version)
        if taken:
            load_checkpoint(path)
        else:
            with pytest.raises(InputError, match="install torch >= 2.10"):
                load_checkpoint(path)


def test_bombs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_file, "MAX_BYTES", 1 << 20)
    with zipfile.ZipFile(tmp_path / "model.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data/0", bytes(2 << 20))
    assert "unpacks to more than" in refuse(tmp_path / "model.pth")
