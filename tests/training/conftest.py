"""Shared fixtures: training in tests runs on one thread, and Ctrl-C means what it means at a terminal."""
from __future__ import annotations

import signal
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from tiny_training import write_clips

from stmask_deploy.training import trainer as trainer_module
from stmask_deploy.training.augmentation import PairAugmentation, View
from stmask_deploy.training.data import Data


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


@pytest.fixture
def unaugmented(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs are the frames as inference sees them: whole, and in their own colours."""
    def draw(_: np.random.Generator, picture_hw: tuple[int, int], size: tuple[int, int]) -> PairAugmentation:
        scale_y, scale_x = np.divide(size, picture_hw)
        matrix = np.array([[scale_x, 0, (scale_x - 1) / 2], [0, scale_y, (scale_y - 1) / 2]])
        return PairAugmentation(View(matrix, size), ((), ()))

    monkeypatch.setattr(PairAugmentation, "draw", draw)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    return Data.open(write_clips(tmp_path_factory.mktemp("clips")), None)


@pytest.fixture
def log_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "LOG_EVERY", 1)
