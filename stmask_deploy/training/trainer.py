"""The training loop."""
from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, Sampler

from ..config import ModelConfig
from ..errors import InputError, StmaskError
from ..models.stmask import STMask
from .average import WeightAverage
from .interrupts import Interrupts
from .learner import PairLearner
from .log import TrainingLog
from .loss_means import LossMeans
from .options import TrainingOptions
from .pairs import PairDataset, collate
from .processes import Process
from .snapshot import Snapshot, damaged, write_model
from .targets import PairBatch

LOG_EVERY = 20  # iterations
SETTINGS = ("betas", "eps", "momentum", "weight_decay")  # of optimizers, those that a run never changes
ADAM_BETAS = (0.9, 0.99)  # the second is lower than usual, because gradients shrink fast in the short runs it is for
Validate = Callable[[STMask, ModelConfig], tuple[dict[str, Any], str]]  # -> scores, one line


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
    def collate(samples: Sequence[PairBatch | InputError]) -> PairBatch | InputError:
        """The batch, or the first error."""
        errors = [one for one in samples if isinstance(one, InputError)]
        return errors[0] if errors else collate([one for one in samples if isinstance(one, PairBatch)])


class Trainer:
    """A run, started from its first iteration or from a snapshot.

    Args:
        model: the network to train; modified in place.
        config: its configuration.
        options: schedule and all other hyperparameters.
        folder: receives model.pth and state.pth.
        process: this process within the group.
        log: records what happens.
        freeze_norms: keep the statistics and parameters of the batch norms.
        is_trained: the network comes from a checkpoint; stored in snapshots.
        validate: evaluates a network; None disables evaluation.
        validation: annotation file and frames of `validate`; stored in snapshots.
        data: fingerprint of the training data; stored in snapshots.
        num_workers: processes that read frames; 0 reads them in this process.
    """

    def __init__(self, model: STMask, config: ModelConfig, options: TrainingOptions, folder: Path, process: Process,
                 log: TrainingLog, *, freeze_norms: bool, is_trained: bool = False,
                 validate: Validate | None = None, validation: tuple[str, str] | None = None, data: str = "",
                 num_workers: int = 0) -> None:
        self._model = model.to(process.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._config, self._options, self._folder = config, options, folder
        self._process, self._log, self._validate, self._num_workers = process, log, validate, num_workers
        self._is_trained, self._validation, self._data = is_trained, validation, data
        self._average = WeightAverage(self._model, options.ema_decay)
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        self._frozen = norms if freeze_norms else []
        for norm in self._frozen:
            norm.requires_grad_(False)
        learner = PairLearner(self._model, config, options).to(process.device)
        self._learner: nn.Module = learner
        if process.count > 1:
            devices = None if process.device == "cpu" else [process.device]
            self._learner = DistributedDataParallel(learner, device_ids=devices, find_unused_parameters=True)
        self._optimizer = make_optimizer(self._model, options)
        self.iteration = 0  # iterations completed
        self._in_step = False
        self._is_same_validation = True  # as before the run was resumed
        self._saved: int | None = None  # iterations completed at the last snapshot
        self._losses = LossMeans(process.device)
        self._interrupts = Interrupts(is_only=process.count == 1)

    def resume(self, snapshot: Snapshot) -> None:
        """Continue from a snapshot of the same network and options.

        Raises:
            InputError: the number of processes differs, so that samples would be skipped or repeated; or the snapshot
                is of another network, or damaged.
        """
        if snapshot.num_processes != self._process.count:
            raise InputError(f"the run was trained by {snapshot.num_processes} processes, now there are "
                             f"{self._process.count}; resume with as many (torchrun --nproc-per-node)")
        try:
            self._model.load_state_dict(dict(snapshot.weights))
            self._average.model.load_state_dict(dict(snapshot.average))
            self._average.num_updates = snapshot.num_updates
            load_optimizer(self._optimizer, snapshot.optimizer)
            self._losses.resume(snapshot.losses)
        except Exception as error:  # PyTorch raises various exceptions for mismatched states
            raise damaged(self._folder, error) from error
        self._is_same_validation = snapshot.validation == self._validation
        self.iteration = snapshot.iteration

    def run(self, dataset: PairDataset) -> None:
        """Train to the end of the schedule. Ctrl-C saves a snapshot and is re-raised, in all processes at once.

        Raises:
            InputError: a frame cannot be read.
            StmaskError: a loss or gradient is not finite.
            OutputError: the folder cannot be written.
        """
        batches = Batches(self.iteration, self._options.iterations, self._options.pairs_per_batch, self._process)
        loader: DataLoader[PairBatch | InputError] = DataLoader(
            Samples(dataset), batch_sampler=batches, collate_fn=Samples.collate, num_workers=self._num_workers,
            worker_init_fn=_start_worker, persistent_workers=False,
            prefetch_factor=4 if self._num_workers else None)
        with self._interrupts:
            try:
                self._train(loader)
            except KeyboardInterrupt:
                if not self._in_step:  # a second Ctrl-C may end a step halfway; the last snapshot stays intact
                    self._save()
                raise

    def _train(self, loader: DataLoader[PairBatch | InputError]) -> None:
        if self.iteration > 0:  # an interruption may have prevented what was due after this iteration
            self._after_step()
        for batch in _start_reading(loader):
            if isinstance(batch, InputError):
                self._leave_if_asked(batch)
            else:
                self._leave_if_asked()
                self._whole_step(batch)
                self._after_step()

    def _whole_step(self, batch: PairBatch) -> None:
        """Run and record one iteration. Ctrl-C waits for its end, because half a step could not be resumed."""
        with self._interrupts.held():
            self._in_step = True
            self._losses.add(self._step(batch))
            self.iteration += 1
            if self.iteration % LOG_EVERY == 0 or self.iteration == self._options.iterations:
                self._log_losses()
            self._in_step = False

    def _step(self, batch: PairBatch) -> dict[str, Tensor]:
        options, device = self._options, torch.device(self._process.device)
        # The seed depends only on options, iteration and rank, so that a resumed run repeats an uninterrupted one.
        torch.manual_seed((options.seed << 32) + self.iteration * self._process.count + self._process.rank)
        rate = options.learning_rate * options.rate(self.iteration)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._learner.train()
        for norm in self._frozen:
            norm.eval()
        with torch.autocast(device.type, torch.bfloat16, enabled=options.precision == "bf16"):
            losses: dict[str, Tensor] = self._learner(batch.to(self._process.device))
        # A loss of weight 0 is left out, so that it cannot spoil the sum if it is not finite.
        weighted = [weight * value for name, value in losses.items() if (weight := getattr(options.weights, name))]
        total = torch.stack(weighted).sum()
        if not bool(torch.isfinite(total)):
            raise self._not_finite(losses)
        self._optimizer.zero_grad(set_to_none=True)
        total.backward()
        length = nn.utils.clip_grad_norm_(self._model.parameters(), options.clip_norm)
        if not bool(torch.isfinite(length)):  # clipping by it would corrupt every weight
            raise self._not_finite({"gradients": length})
        self._optimizer.step()
        self._average.update(self._model)
        return {"total": total.detach(), **{name: value.detach() for name, value in losses.items()}}

    def _not_finite(self, values: Mapping[str, Tensor]) -> StmaskError:
        found = ", ".join(f"{name} {float(value.detach()):.4g}" for name, value in values.items())
        return StmaskError(f"iteration {self.iteration}: a loss is not finite ({found}); start again with a lower "
                           "--rate")

    def _log_losses(self) -> None:
        options = self._options
        rate = options.learning_rate * options.rate(self.iteration - 1)
        pairs = self._losses.count * options.pairs_per_batch * self._process.count
        losses, seconds = self._losses.take()
        self._log.losses(self.iteration, rate, losses, pairs / seconds)

    def _after_step(self) -> None:
        options = self._options
        is_validation_due = self.iteration % options.validate_every == 0 or self.iteration == options.iterations
        if is_validation_due or self.iteration % options.save_every == 0:
            self._save()
        if is_validation_due:  # after saving, so that a failure here costs no step
            self._evaluate()
            self._leave_if_asked()

    def _evaluate(self) -> None:
        """Evaluate in the first process, unless the log already has the result or Ctrl-C was pressed."""
        if not self._process.is_first or self._validate is None or self._interrupts.is_set:
            return
        if self._is_same_validation and self._log.has_validation(self.iteration):
            return
        with self._losses.left_out(), self._interrupts.alone():
            self._log.validation(self.iteration, *self._validate(self._average.model, self._config))

    def _leave_if_asked(self, error: InputError | None = None) -> None:
        """Raise `error`, or KeyboardInterrupt after Ctrl-C; if any process has either, all of them stop.

        No process stops before the first has saved, because the launcher ends all of them once one has exited.
        """
        if self._process.any(self._interrupts.is_set or error is not None):
            self._save()
            self._process.wait()
            raise error or KeyboardInterrupt

    def _save(self) -> None:
        if self._process.is_first and self._saved != self.iteration:
            write_model(self._folder, self._average.model, self._config)
            Snapshot(self.iteration, self._config, self._options, self._model.state_dict(),
                     self._average.model.state_dict(), self._average.num_updates,
                     self._optimizer.state_dict(), self._is_trained, self._process.count,
                     self._validation, self._log.seconds, self._losses.state(), self._data).write(self._folder)
            self._saved = self.iteration


def make_optimizer(model: nn.Module, options: TrainingOptions) -> torch.optim.Optimizer:
    """AdamW or SGD over all trainable parameters; no weight decay for biases and norms."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [{"params": [one for one in learning if one.ndim > 1], "weight_decay": options.weight_decay},
              {"params": [one for one in learning if one.ndim <= 1], "weight_decay": 0.0}]
    if options.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=options.learning_rate, betas=ADAM_BETAS)
    return torch.optim.SGD(groups, lr=options.learning_rate, momentum=options.momentum)


def load_optimizer(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """`optimizer.load_state_dict` for a state of the same options; PyTorch's takes settings and shapes on trust.

    Raises:
        Exception: it is of something else. PyTorch raises various exceptions too.
    """
    for own, saved in zip(optimizer.param_groups, state["param_groups"], strict=True):
        if any(saved[name] != own[name] for name in SETTINGS if name in own):
            raise ValueError("other settings")
    optimizer.load_state_dict(dict(state))
    for parameter, values in optimizer.state.items():
        if any(isinstance(one, Tensor) and one.ndim and one.shape != parameter.shape for one in values.values()):
            raise ValueError("other shapes")


def _start_reading(loader: DataLoader[PairBatch | InputError]) -> Iterator[PairBatch | InputError]:
    """Iterate over `loader`, whose workers start while OpenCV has no threads: they would wait for these forever."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    batches: Iterator[PairBatch | InputError] = iter(loader)
    cv2.setNumThreads(threads)
    return batches


def _start_worker(_worker: int) -> None:
    cv2.setNumThreads(1)  # the workers provide the parallelism
    # Ctrl-C and other signals to the process group are left to the trainer, which may need a batch for its step.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setsid"):
        os.setsid()
    # A thread that delivers a batch meets a closed socket once the trainer has stopped; its traceback is not useful.
    sys.excepthook = lambda *_: None
