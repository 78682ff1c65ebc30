"""One process, or several that learn together."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_training import CLIPS, CONFIG, OPTIONS, Thing, write_clips, write_recipe

from stmask_deploy.errors import DeviceError, InputError, StmaskError
from stmask_deploy.training import processes
from stmask_deploy.training.processes import Process, join_processes
from stmask_deploy.training.weights import from_scratch


def test_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("auto", "cpu"):
        with join_processes(device) as process:
            assert process == Process(0, 1, "cpu") and process.is_first
            process.wait()  # for nobody
    with pytest.raises(DeviceError, match="no CUDA device here; use --device cpu"), join_processes("cuda"):
        pass


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DeviceError, match="process 1 .* PyTorch finds 1"), join_processes(device):
        pass


@pytest.mark.parametrize("text", ["pair.cc:553] Connection closed by peer [127.0.0.1]:1", "Connection reset by peer"])
def test_a_lost_connection_is_told_as_such(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    for function in ("init_process_group", "destroy_process_group"):
        monkeypatch.setattr(processes.dist, function, lambda *_args, **_options: None)
    with pytest.raises(StmaskError, match="^another training process has ended"), join_processes("cpu"):
        raise RuntimeError(text)
    with pytest.raises(RuntimeError, match="^other$"), join_processes("cpu"):
        raise RuntimeError("other")


def start_two(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
               str(Path(__file__).with_name(script)), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=500,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})


@pytest.mark.slow
def test_two_processes_end_with_one_network(tmp_path: Path) -> None:
    lonely = [Thing("box", (30, 40), (0, 0), 30, frames=(0,))]  # in no second frame: nothing for TemporalNet
    annotations = write_clips(tmp_path / "clips", [CLIPS[0], lonely], frames=2)
    options = replace(OPTIONS, iterations=3, pairs_per_batch=1, validate_every=2)
    recipe = write_recipe(tmp_path / "recipe.json", options)
    done = start_two("train_in_processes.py", annotations, recipe, tmp_path / "run", tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pth", weights_only=True) for rank in range(2))
    start = from_scratch(CONFIG).state_dict()
    assert len(first) > 50 and all(torch.equal(value, second[name]) for name, value in first.items())
    assert sum(not torch.equal(value, start[name]) for name, value in first.items()) > 50
    state = torch.load(tmp_path / "run" / "state.pth", weights_only=True)
    assert state["iteration"] == 3 and all(torch.equal(value, state["weights"][name]) for name, value in first.items())
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [record["iteration"] for record in log if "losses" in record] == [3]
    assert [record["iteration"] for record in log if "validation" in record] == [2, 3]
    assert "2 x cpu" in log[0]["note"] and sum("note" in record for record in log) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("case", "message"), [
    ("ctrl-c", "interrupted"), ("sigterm", "interrupted"), ("validation", "interrupted"),
    ("frame", "error: no picture"),
])
def test_all_processes_leave_after_the_same_step(tmp_path: Path, case: str, message: str) -> None:
    annotations = write_clips(tmp_path / "clips", frames=2)
    every = 2 if case == "validation" else 1000
    recipe = write_recipe(tmp_path / "recipe.json", replace(OPTIONS, pairs_per_batch=1, validate_every=every))
    done = start_two("stop_in_processes.py", case, annotations, "-o", tmp_path / "run", "--recipe", recipe, "--val",
                     annotations, "--device", "cpu", "--workers", "0")
    assert done.returncode != 0 and message in done.stderr.splitlines()
    assert "error: RuntimeError" not in done.stderr  # nobody lost the others
    assert torch.load(tmp_path / "run" / "state.pth", weights_only=True)["iteration"] == 2


@pytest.mark.parametrize(("environment", "told"), [
    ({"WORLD_SIZE": "abc"}, "is not a number .*abc.*; torchrun sets them"),
    ({"WORLD_SIZE": "2"}, "WORLD_SIZE is in the environment, but RANK is not")])
def test_an_environment_that_torchrun_did_not_make(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str],
                                                   told: str) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=told), join_processes("cpu"):
        pass
