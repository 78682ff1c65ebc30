from __future__ import annotations

import os
import pickle
from dataclasses import asdict
from pathlib import Path

import cv2
import pytest
import torch
from runs import tensors
from tiny_training import ALONE, CONFIG, write_clips

from stmask_deploy.errors import InputError, StmaskError
from stmask_deploy.training.batches import Batches, Samples, batch_loader, start_reading
from stmask_deploy.training.data import Data
from stmask_deploy.training.pairs import PairDataset, collate
from stmask_deploy.training.processes import Process


@pytest.fixture(scope="module")
def dataset(data: Data) -> PairDataset:
    return PairDataset(data.annotations, data.frames, CONFIG, 12, 5, 0, copy_paste=0.0)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_what_is_read_is_what_the_dataset_has(dataset: PairDataset, num_workers: int) -> None:
    found = list(start_reading(batch_loader(dataset, 1, 3, 4, ALONE, num_workers)))
    assert len(found) == 2
    for batch, first in zip(found, (4, 8), strict=True):
        assert not isinstance(batch, InputError)
        wanted, values = (dict(tensors(_plain(asdict(one)))) for one in (
            collate([dataset[index] for index in range(first, first + 4)]), batch))
        assert len(wanted) > 10 and wanted.keys() == values.keys()
        assert all(torch.equal(values[name], wanted[name]) and values[name].dtype == wanted[name].dtype
                   for name in wanted)


def test_a_batch_goes_through_a_pipe(dataset: PairDataset) -> None:
    """Tensors would each need shared memory, a descriptor and a socket, all of which may be short."""
    batch = Samples.collate([dataset[0], dataset[1]])
    assert isinstance(batch, bytes)
    assert b"storage" not in batch.lower()  # nothing of PyTorch's own way, in which unpickling takes ten times as long
    pickle.loads(batch).first.add_(1)  # noqa: S301 - it may be changed


def test_the_first_error_takes_the_place_of_a_batch(tmp_path: Path) -> None:
    data = Data.open(write_clips(tmp_path), None)
    dataset = PairDataset(data.annotations, data.frames, CONFIG, 12, 5, 0, copy_paste=0.0)
    for frame in tmp_path.rglob("*.png"):
        frame.write_bytes(b"broken")
    found = list(start_reading(batch_loader(dataset, 0, 2, 4, ALONE, 1)))
    assert [type(one) for one in found] == [InputError] * 2


@pytest.mark.parametrize("start", [0, 3])
def test_batches_share_the_samples_out(start: int) -> None:
    processes = [list(Batches(start, 5, 2, Process(rank, 3, "cpu"))) for rank in range(3)]
    assert all(len(batches) == 5 - start == len(Batches(start, 5, 2, ALONE)) for batches in processes)
    in_order = [index for iteration in zip(*processes, strict=True) for batch in iteration for index in batch]
    assert in_order == list(range(start * 6, 30))


def test_nothing_is_left_of_a_finished_schedule() -> None:
    assert list(Batches(5, 5, 2, ALONE)) == [] and len(Batches(5, 5, 2, ALONE)) == 0


def _plain(value: object) -> object:
    """Tuples as lists, in which `tensors` looks."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def test_a_system_that_starts_no_workers(dataset: PairDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    loader, threads = batch_loader(dataset, 0, 2, 4, ALONE, 1), cv2.getNumThreads()

    def fail(_: object) -> None:
        assert os.environ["PYTHONSAFEPATH"] == "1"  # see `spawning`
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(type(loader), "__iter__", fail)
    with pytest.raises(StmaskError, match="can be started .*Read-only file system.*; use --workers 0"):
        next(start_reading(loader))
    assert cv2.getNumThreads() == threads
