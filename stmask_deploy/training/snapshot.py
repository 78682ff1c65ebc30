"""Files that a training run leaves on disk: the network so far, and everything needed to resume."""
from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..atomic import atomic_file
from ..config import ModelConfig
from ..errors import InputError
from ..models.checkpoint import CONFIG_KEY
from ..models.stmask import STMask
from ..models.torch_file import load_tensors, save_tensors
from .options import TrainingOptions

MODEL_FILE = "model.pth"  # averaged weights, for stmask-export
STATE_FILE = "state.pth"  # for --resume


@dataclass(frozen=True)
class Snapshot:
    """The state of a run between two iterations."""

    iteration: int  # iterations completed
    config: ModelConfig
    options: TrainingOptions
    weights: Mapping[str, Any]
    average: Mapping[str, Any]
    num_updates: int  # of the average
    optimizer: Mapping[str, Any]
    is_trained: bool  # the run started from a checkpoint
    num_processes: int  # sharing the batches
    validation: tuple[str, str] | None  # annotation file and frame folder used for evaluation
    seconds: float  # duration of the run so far
    losses: Mapping[str, Any]  # state of `LossMeans`
    data: str  # fingerprint of the training data

    def __post_init__(self) -> None:
        for name in ("weights", "average", "optimizer", "losses"):
            if not isinstance(getattr(self, name), Mapping):
                raise TypeError(f"{name} is no mapping")
        for name, least in (("iteration", 0), ("num_updates", 0), ("num_processes", 1)):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < least:
                raise TypeError(f"{name} is no such number")
        if self.iteration > self.options.iterations:
            raise ValueError("more iterations than the run has")
        paths = self.validation
        if paths is not None and not (isinstance(paths, tuple) and len(paths) == 2
                                      and all(isinstance(path, str) for path in paths)):
            raise TypeError("validation is no pair of paths")
        if not (isinstance(self.is_trained, bool) and isinstance(self.data, str)
                and isinstance(self.seconds, (int, float))):
            raise TypeError("a value has another type")

    def write(self, folder: Path) -> None:
        """Replace the snapshot in `folder`; a failure keeps the earlier one.

        Raises:
            OutputError: it cannot be written.
        """
        values = {"iteration": self.iteration, "config": self.config.to_dict(), "options": self.options.to_dict(),
                  "weights": dict(self.weights), "average": dict(self.average), "num_updates": self.num_updates,
                  "optimizer": dict(self.optimizer), "is_trained": self.is_trained,
                  "num_processes": self.num_processes, "validation": self.validation, "seconds": self.seconds,
                  "losses": dict(self.losses), "data": self.data}
        with atomic_file(folder / STATE_FILE, overwrite=True) as file:
            save_tensors(values, file)

    @classmethod
    def read(cls, folder: Path) -> Snapshot:
        """Read the snapshot in `folder`.

        Raises:
            InputError: there is none, it cannot be read or is damaged, or this torch cannot load it safely.
        """
        path = folder / STATE_FILE
        if not os.path.isfile(path):
            raise InputError(f"{path} does not exist: there is no training to resume in {folder}")
        try:
            values = load_tensors(path)
            return cls(**{**values, "config": ModelConfig.from_dict(values["config"]),
                          "options": TrainingOptions.from_dict(values["options"])})
        except InputError:
            raise
        except OSError as error:
            raise InputError(f"{path} cannot be read ({error.strerror or error}); check its permissions and the disk"
                             ) from error
        except Exception as error:  # torch reports damaged files with whatever its parsers raise
            raise damaged(folder, error) from error


def damaged(folder: Path, error: Exception) -> InputError:
    """The error to raise if the snapshot in `folder` has invalid content."""
    return InputError(f"{folder / STATE_FILE} is damaged or not a training state ({type(error).__name__}); start the "
                      "training again without --resume")


def write_model(folder: Path, model: STMask, config: ModelConfig) -> Path:
    """Write a checkpoint for `stmask-export`, with the released parameter names and its own configuration.

    Raises:
        OutputError: it cannot be written.
    """
    path = folder / MODEL_FILE
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with atomic_file(path, overwrite=True) as file:
        save_tensors({"state_dict": state, CONFIG_KEY: config.to_dict()}, file)
    return path
