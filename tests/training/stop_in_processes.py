"""What `torchrun` starts in `test_processes.py`: `stmask-train` whose process 1 cannot go on with iteration 2.

Arguments: what happens there (ctrl-c | sigterm | validation | frame), then those of the command. With `validation` it
is process 0 that is interrupted while it evaluates.
"""
from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

import torch

from stmask_deploy.errors import InputError
from stmask_deploy.training import run
from stmask_deploy.training.cli import main
from stmask_deploy.training.pairs import PairDataset

SAMPLE = 5  # of process 1 in iteration 2, with a pair each
read = PairDataset.__getitem__


def read_or_stop(self: PairDataset, index: int) -> Any:
    if index == SAMPLE - 1:
        time.sleep(1)  # process 0 has not begun with the step when the other wants to leave
    if index == SAMPLE and sys.argv[1] == "ctrl-c":
        signal.raise_signal(signal.SIGINT)
    if index == SAMPLE and sys.argv[1] == "sigterm":
        signal.raise_signal(signal.SIGTERM)
    if index == SAMPLE and sys.argv[1] == "frame":
        raise InputError("no picture")
    return read(self, index)


def interrupted(*_arguments: Any) -> Any:
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)


if __name__ == "__main__":
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a background job
    PairDataset.__getitem__ = read_or_stop  # type: ignore[method-assign]
    run.evaluate_model = interrupted
    main(sys.argv[2:])
