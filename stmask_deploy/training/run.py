"""A complete training run: combines data, network, schedule and evaluation."""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ..config import CenternessOrder, ModelConfig
from ..errors import InputError
from ..models.stmask import STMask
from .data import Data
from .log import TrainingLog
from .options import TEMPORAL_LOSSES, TrainingOptions
from .pairs import PairDataset
from .processes import Process
from .recipe import Recipe
from .run_folder import clear_folder
from .snapshot import MODEL_FILE, Snapshot
from .trainer import Trainer, Validate
from .validation import evaluate_model
from .weights import from_checkpoint, from_scratch

FEWEST_CHANNELS = 4  # of the backbone's first stage


@dataclass(frozen=True)
class Start:
    """What a run starts from.

    Raises:
        InputError: such a network cannot be trained, or would learn nothing.
    """

    model: STMask
    config: ModelConfig
    options: TrainingOptions
    is_trained: bool
    notes: tuple[str, ...]
    snapshot: Snapshot | None = None

    def __post_init__(self) -> None:
        weights = asdict(self.options.weights)
        if not any(weight for name, weight in weights.items() if self.config.temporal or name not in TEMPORAL_LOSSES):
            raise InputError("every loss of this network has weight 0, so it would learn nothing; raise one of weights")
        # With fewer, oneDNN's kernels for channels-last maps overwrite memory that is not theirs (PyTorch 2.13).
        if self.config.widths[0] < FEWEST_CHANNELS:
            raise InputError(f"widths starts with {self.config.widths[0]}; a network that is trained needs at least "
                             f"{FEWEST_CHANNELS} channels there")


def start_run(recipe: Recipe, class_names: tuple[str, ...], checkpoint: Path | None = None,
              centerness_order: CenternessOrder | None = None, input_size: tuple[int, int] | None = None,
              names_file: Path | None = None) -> Start:
    """A new run: from scratch with the recipe's network, or from a checkpoint with its own.

    A checkpoint keeps its centerness order and input size unless others are given; for `names_file` see
    `from_checkpoint`.

    Raises:
        InputError: the recipe or the checkpoint cannot be used.
    """
    if checkpoint is not None:
        model, config, notes = from_checkpoint(checkpoint, class_names, recipe.options.seed, names_file)
    else:
        config, notes = recipe.config(class_names), []
        model = from_scratch(config, recipe.options.seed)
    if centerness_order is not None and centerness_order is not config.centerness_order:
        config = replace(config, centerness_order=centerness_order)
        model.prediction_layers[0].centerness_order = centerness_order  # type: ignore[assignment]
        notes = [*notes, f"centerness order: {centerness_order.value}, as asked"]
    if input_size is not None and input_size != config.input_size:
        config = replace(config, input_size=input_size)
        notes = [*notes, f"input size: {input_size[0]}x{input_size[1]}, as asked"]
    return Start(model, config, recipe.options, checkpoint is not None, tuple(notes))


def resume_run(folder: Path, class_names: tuple[str, ...]) -> Start:
    """Resume the run whose snapshot is in `folder`.

    Raises:
        InputError: there is none, or it was trained on other classes.
    """
    snapshot = Snapshot.read(folder)
    if snapshot.config.class_names != class_names:
        raise InputError(f"the run in {folder} learns the classes {', '.join(snapshot.config.class_names[:5])}, the "
                         f"dataset has {', '.join(class_names[:5])}; resume with the dataset it was started with")
    return Start(from_scratch(snapshot.config), snapshot.config, snapshot.options, snapshot.is_trained,
                 (f"resumed after iteration {snapshot.iteration}",), snapshot)


def open_validation(annotations: Path | None, frames: Path | None, resumed: Start | None) -> Data | None:
    """The dataset to evaluate on: `annotations`, or by default the one a resumed run was evaluated on.

    Raises:
        InputError: see `Data.open`; or `frames` is given without a dataset.
    """
    if annotations is not None:
        return Data.open(annotations, frames)
    if resumed is None or resumed.snapshot is None or resumed.snapshot.validation is None:
        if frames is not None:
            raise InputError("--val-frames says where the frames of --val lie; give --val too")
        return None
    before = [Path(path) for path in resumed.snapshot.validation]
    try:
        return Data.open(before[0], frames or before[1])
    except InputError as error:
        raise InputError(f"{error}; the run was evaluated on it: say with --val where it lies now, or go on without it "
                         "with --no-val") from error


def train(start: Start, data: Data, validation: Data | None, folder: Path, process: Process, *,
          num_workers: int = 0, say: Callable[[str], None] = lambda _line: None) -> Path:
    """Train to the end of the schedule.

    Args:
        start: from `start_run` or `resume_run`.
        data: to train on.
        validation: to evaluate on; None disables evaluation.
        folder: see `Trainer`; of `claimed_folder`. A new run replaces an earlier one in it after its first step.
        process: this process within the group.
        num_workers: see `Trainer`.
        say: called with one line per event.

    Returns:
        Path of the checkpoint with averaged weights.

    Raises:
        InputError: a frame cannot be read, or a resumed run was trained on other data.
        OutputError: the folder cannot be written.
        StmaskError: a loss or gradient is not finite.
    """
    if validation is not None:
        validation.check_classes(data)
    if start.snapshot is not None and start.snapshot.data != data.fingerprint:
        raise InputError(f"the run in {folder} learns from another dataset than {data.annotations.path}, or it was "
                         "changed since; resume with the one it was started with")
    options, config = start.options, start.config
    dataset = PairDataset(data.annotations, data.frames, config,
                          options.iterations * options.pairs_per_batch * process.count, options.max_gap, options.seed,
                          copy_paste=options.copy_paste)
    log = TrainingLog(folder if process.is_first else None, say)
    is_new = start.snapshot is None
    if is_new:
        log.hold()
    freeze = start.is_trained if options.freeze_norms is None else options.freeze_norms
    trainer = Trainer(start.model, config, options, folder, process, log, freeze_norms=freeze,
                      is_trained=start.is_trained, validate=_validator(validation, process),
                      validation=_noted(validation), data=data.fingerprint, num_workers=num_workers,
                      begin=partial(_begin, log, folder if process.is_first else None) if is_new else None)
    if start.snapshot is not None:
        trainer.resume(start.snapshot)
        log.resume(start.snapshot.iteration, start.snapshot.seconds)
    parameters = sum(parameter.numel() for parameter in start.model.parameters())
    log.note(f"{config.variant}, {parameters / 1e6:.2f} million parameters, {len(config.class_names)} classes; "
             f"{dataset.num_keys} annotated frames in {len(data.annotations.videos)} videos; {process.count} x "
             f"{process.device}, {options.precision}")
    for note in (*start.notes, *_about_speed(options.precision, process.device)):
        log.note(note)
    trainer.run(dataset)
    return folder / MODEL_FILE


def _begin(log: TrainingLog, folder: Path | None) -> None:
    """Replace an earlier run: the first step has shown that this one works."""
    if folder is not None:
        clear_folder(folder)
    log.release()


def _noted(validation: Data | None) -> tuple[str, str] | None:
    """The dataset that the next snapshot records as being evaluated on."""
    if validation is None:
        return None
    return str(validation.annotations.path.absolute()), str(validation.frames.absolute())


def _about_speed(precision: str, device: str) -> tuple[str, ...]:
    """A warning if PyTorch has no fast implementation of `precision` on this CPU."""
    if (precision, device, torch.backends.cpu.get_cpu_capability()) == ("bf16", "cpu", "AVX2"):
        return ("this processor has no AVX-512, without which bf16 is several times slower than f32: stop and "
                "give --precision f32",)
    return ()


def _validator(data: Data | None, process: Process) -> Validate | None:
    if data is None:
        return None

    def validate(model: STMask, config: ModelConfig) -> tuple[dict[str, Any], str]:
        evaluation = evaluate_model(model, config, data.annotations, data.frames, process.device)
        return evaluation.to_dict(), evaluation.summary()

    return validate
