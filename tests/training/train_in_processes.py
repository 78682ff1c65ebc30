"""What `torchrun` starts in `test_processes.py`: a training whose every process keeps what it ended with.

Arguments: annotation file, recipe, folder of the run, folder for the parameters of each process.
"""
from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path

import torch

from stmask_deploy.training.data import Data
from stmask_deploy.training.processes import join_processes
from stmask_deploy.training.recipe import read_recipe
from stmask_deploy.training.run import start_run, train
from stmask_deploy.training.run_folder import claimed_folder


def main(annotations: Path, recipe: Path, folder: Path, parameters: Path) -> None:
    torch.set_num_threads(1)
    data = Data.open(annotations, None)
    start = start_run(read_recipe(str(recipe)), data.class_names)
    with join_processes("cpu") as process, ExitStack() as stack:
        if process.is_first:
            stack.enter_context(claimed_folder(folder, overwrite=False, resume=False))
        process.wait()
        train(start, data, data if process.is_first else None, folder, process)
        torch.save(dict(start.model.named_parameters()), parameters / f"{process.rank}.pth")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
