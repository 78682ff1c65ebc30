"""One or more training processes, as started by `torchrun`."""
from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from ..errors import DeviceError, InputError, StmaskError

PATIENCE = timedelta(hours=2)  # timeout of the other processes, which wait while the first one validates


@dataclass(frozen=True)
class Process:
    """This process within the group."""

    rank: int
    count: int
    device: str  # cpu | cuda:N
    group: Any = None  # PyTorch process group for CPU tensors; None is the default group

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def any(self, wish: bool) -> bool:
        """Whether any process passes True; a collective call, which returns the same value in all processes."""
        if self.count == 1:
            return wish
        wishes = torch.tensor(int(wish))
        dist.all_reduce(wishes, dist.ReduceOp.MAX, group=self.group)
        return bool(wishes)

    def wait(self) -> None:
        """Wait until all processes have reached this point."""
        self.any(False)


@contextmanager
def join_processes(device: str = "auto") -> Iterator[Process]:
    """Join the process group started by `torchrun`, if any.

    Args:
        device: auto | cpu | cuda; auto uses a GPU if there is one.

    Raises:
        InputError: the environment is not as torchrun sets it.
        DeviceError: cuda is requested but PyTorch finds none, or there are more processes than GPUs.
        StmaskError: the body lost the connection to another process.
    """
    try:
        rank, count, local = (int(os.environ.get(name, default)) for name, default in
                              (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0")))
    except ValueError as error:
        raise InputError(f"RANK, WORLD_SIZE or LOCAL_RANK in the environment is not a number ({error}); torchrun sets "
                         "them: start with it, or unset them") from error
    if count > 1 and "RANK" not in os.environ:
        raise InputError("WORLD_SIZE is in the environment, but RANK is not; torchrun sets both: start with it, or "
                         "unset WORLD_SIZE")
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("PyTorch finds no CUDA device here; use --device cpu, or install a CUDA build of torch")
    if device != "cpu" and 0 < torch.cuda.device_count() <= local:
        raise DeviceError(f"process {local} of this machine has no GPU of its own: PyTorch finds "
                          f"{torch.cuda.device_count()}; start as many processes, or use --device cpu")
    use_cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if use_cuda:
        torch.cuda.set_device(local)
    name = f"cuda:{local}" if use_cuda else "cpu"
    if count == 1:
        yield Process(rank, count, name)
        return
    dist.init_process_group("nccl" if use_cuda else "gloo", timeout=PATIENCE)
    try:
        # A CPU group, because a collective call on GPU tensors would have to wait for the GPUs to finish their work.
        yield Process(rank, count, name, dist.new_group(backend="gloo", timeout=PATIENCE) if use_cuda else None)
    except RuntimeError as error:
        if re.search("onnection (closed|reset) by peer", str(error)):
            raise StmaskError("another training process has ended, and its own message says why") from error
        raise
    finally:
        dist.destroy_process_group()
