"""Shared fixtures: training in tests runs on one thread, and Ctrl-C means what it means at a terminal."""
from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
import torch
from tiny_training import write_clips

from stmask_deploy.training import trainer as trainer_module
from stmask_deploy.training.run import Data


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def usual_interrupt() -> Iterator[None]:
    """A background job starts with Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return Data.open(write_clips(tmp_path_factory.mktemp("clips")), None)


@pytest.fixture
def log_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "LOG_EVERY", 1)
