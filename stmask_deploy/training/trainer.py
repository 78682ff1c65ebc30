"""The training loop."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..config import ModelConfig
from ..errors import InputError, StmaskError
from ..models.stmask import STMask
from .average import WeightAverage
from .batches import Loader, batch_loader, start_reading
from .interrupts import Interrupts
from .learner import PairLearner
from .log import TrainingLog
from .loss_means import LossMeans
from .optimizer import load_optimizer, make_optimizer
from .options import TrainingOptions
from .pairs import PairDataset
from .processes import Process
from .snapshot import Snapshot, damaged, write_model
from .targets import PairBatch

LOG_EVERY = 20  # iterations
Validate = Callable[[STMask, ModelConfig], tuple[dict[str, Any], str]]  # -> scores, one line


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
        begin: called once, when the first step is done or before anything is written; None for a run that is resumed.
    """

    def __init__(self, model: STMask, config: ModelConfig, options: TrainingOptions, folder: Path, process: Process,
                 log: TrainingLog, *, freeze_norms: bool, is_trained: bool = False,
                 validate: Validate | None = None, validation: tuple[str, str] | None = None, data: str = "",
                 num_workers: int = 0, begin: Callable[[], None] | None = None) -> None:
        self._model = model.to(process.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._config, self._options, self._folder = config, options, folder
        self._process, self._log, self._validate, self._num_workers = process, log, validate, num_workers
        self._is_trained, self._validation, self._data, self._begin = is_trained, validation, data, begin
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
        loader = batch_loader(dataset, self.iteration, self._options.iterations, self._options.pairs_per_batch,
                              self._process, self._num_workers)
        with self._interrupts:
            try:
                self._train(loader)
            except KeyboardInterrupt:
                if not self._in_step:  # a second Ctrl-C may end a step halfway; the last snapshot stays intact
                    self._save()
                raise

    def _train(self, loader: Loader) -> None:
        if self.iteration > 0:  # an interruption may have prevented what was due after this iteration
            self._after_step()
        for batch in start_reading(loader):
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
            self._begin_once()
            if self.iteration % LOG_EVERY == 0 or self.iteration == self._options.iterations:
                self._log_losses()
            self._in_step = False

    def _begin_once(self) -> None:
        if self._begin is not None:
            begin, self._begin = self._begin, None
            begin()

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
            if error is None or self.iteration:  # without a step there is nothing to go on with
                self._save()
            self._process.wait()
            raise error or KeyboardInterrupt

    def _save(self) -> None:
        if self._process.is_first and self._saved != self.iteration:
            self._begin_once()
            write_model(self._folder, self._average.model, self._config)
            Snapshot(self.iteration, self._config, self._options, self._model.state_dict(),
                     self._average.model.state_dict(), self._average.num_updates,
                     self._optimizer.state_dict(), self._is_trained, self._process.count,
                     self._validation, self._log.seconds, self._losses.state(), self._data).write(self._folder)
            self._saved = self.iteration
