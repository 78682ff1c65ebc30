"""Reading the samples of a run in batches, in this process or in others."""
from __future__ import annotations

import io
import os
import pickle
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..errors import InputError, StmaskError
from ..spawning import spawning
from .pairs import PairDataset, collate
from .processes import Process
from .targets import PairBatch

Loader = DataLoader["bytes | InputError"]  # see `Samples.collate`


class Batches(Sampler[list[int]]):
    """Sample indices of one process by iteration, determined by the iteration alone so that training can be resumed."""

    def __init__(self, start: int, stop: int, size: int, process: Process) -> None:
        self._start, self._stop, self._size, self._process = start, stop, size, process

    def __len__(self) -> int:
        return self._stop - self._start

    def __iter__(self) -> Iterator[list[int]]:
        for iteration in range(self._start, self._stop):
            first = (iteration * self._process.count + self._process.rank) * self._size
            yield list(range(first, first + self._size))


class Samples(Dataset["PairBatch | InputError"]):
    """Wraps a dataset to return its errors: raised in a worker process, they would arrive as a traceback."""

    def __init__(self, dataset: PairDataset) -> None:
        self._dataset = dataset

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> PairBatch | InputError:
        try:
            return self._dataset[index]
        except InputError as error:
            return error

    @staticmethod
    def collate(samples: Sequence[PairBatch | InputError]) -> bytes | InputError:
        """The batch, pickled, or the first error.

        Bytes go through a worker's pipe. Each tensor of a batch would need shared memory, a file descriptor and a
        socket; where these are short (containers have 64 MB), PyTorch's workers lose the batch, which is waited for.
        """
        errors = [one for one in samples if isinstance(one, InputError)]
        if errors:
            return errors[0]
        file = io.BytesIO()
        _ArrayPickler(file, pickle.HIGHEST_PROTOCOL).dump(collate([one for one in samples
                                                                   if isinstance(one, PairBatch)]))
        return file.getvalue()


class _ArrayPickler(pickle.Pickler):
    """Pickles tensors as arrays, which takes a tenth of the time of PyTorch's own way."""

    def reducer_override(self, value: Any) -> Any:
        return (torch.from_numpy, (value.numpy(),)) if isinstance(value, Tensor) else NotImplemented


def batch_loader(dataset: PairDataset, start: int, stop: int, size: int, process: Process, num_workers: int) -> Loader:
    """Loads what one process trains on: a batch, or the error of a sample, for each of the iterations start..stop-1.

    Args:
        dataset: samples in the order of training.
        start, stop: iterations completed, and of the whole run.
        size: samples of a batch.
        process: the one that trains, see `Batches`.
        num_workers: processes that read frames; 0 reads them in this one.
    """
    samples: Dataset[Any] = Samples(dataset)  # what it loads is not of the type of a sample
    return DataLoader(samples, batch_sampler=Batches(start, stop, size, process), collate_fn=Samples.collate,
                      num_workers=num_workers, worker_init_fn=_start_worker, persistent_workers=False,
                      prefetch_factor=4 if num_workers else None)


def start_reading(loader: Loader) -> Iterator[PairBatch | InputError]:
    """Iterate over `loader`, whose workers start while OpenCV has no threads: they would wait for these forever.

    Raises:
        StmaskError: the system starts no workers.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        with spawning():
            batches = iter(loader)
    except OSError as error:
        raise StmaskError(f"no processes that read frames can be started ({error}); use --workers 0") from error
    finally:
        cv2.setNumThreads(threads)
    for batch in batches:
        yield batch if isinstance(batch, InputError) else pickle.loads(batch)  # noqa: S301 (made by `collate`)


def _start_worker(_worker: int) -> None:
    cv2.setNumThreads(1)  # the workers provide the parallelism
    # Ctrl-C and other signals to the process group are left to the trainer, which may need a batch for its step.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setsid"):
        os.setsid()
    # A thread that delivers a batch meets a closed socket once the trainer has stopped; its traceback is not useful.
    sys.excepthook = lambda *_: None
