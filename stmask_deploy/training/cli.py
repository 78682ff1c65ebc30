"""The command `stmask-train`."""
from __future__ import annotations

import os
import shlex
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import click

from .. import __version__
from ..console import Command
from ..errors import InputError
from ..option_types import FloatRange, FrameSize, NamedPath
from ..teller import Teller
from .options import RANGES, WHOLE

_EPILOG = """\b
Examples:
  stmask-train synth/train/instances.json -o runs/demo --recipe demo --val synth/val/instances.json
  stmask-train train.json --frames JPEGImages -o runs/mine --from STMask_plus_resnet50_ada.pth --iterations 5000
  stmask-train synth/train/instances.json -o runs/demo --resume
  torchrun --nproc-per-node 4 -m stmask_deploy.training synth/train/instances.json -o runs/four --recipe demo

\b
Exit codes: 0 done; 1 training failed; 2 bad input or usage; 4 output could not be written; 5 device; 130 interrupted,
--resume goes on.
"""


def _numbers(name: str) -> click.IntRange | FloatRange:
    """The numbers that an option of training may be."""
    low, high = RANGES[name]
    return click.IntRange(int(low), int(high)) if name in WHOLE else FloatRange(low, high)


@click.command(cls=Command, epilog=_EPILOG, context_settings={"max_content_width": 110, "show_default": True})
@click.argument("annotations", type=NamedPath())
@click.option("-o", "--output", "folder", required=True, type=NamedPath(file_okay=False),
              metavar="DIR",
              help="Output folder for model.pth (for stmask-export), state.pth (for --resume) and log.jsonl.")
@click.option("--frames", type=NamedPath(), metavar="DIR",
              help="Base folder of the file names in ANNOTATIONS.  [default: JPEGImages beside it]")
@click.option("--val", "val_annotations", type=NamedPath(), metavar="ANNOTATIONS",
              help="Evaluate on these during and after training.  [default with --resume: as before]")
@click.option("--val-frames", type=NamedPath(), metavar="DIR",
              help="Frames of --val.  [default: JPEGImages beside it]")
@click.option("--no-val", is_flag=True, help="With --resume: stop evaluating.")
@click.option("--recipe", metavar="NAME|FILE", help="Network and schedule; shipped: demo-small, demo, r50-dcn-ada, "
              "and, schedules alone for --from: fine-tune, demo-finish.  [default: demo, or fine-tune with --from]")
@click.option("--from", "checkpoint", type=NamedPath(), metavar="CHECKPOINT",
              help="Start from this network instead of the recipe's; its class layers start anew where the classes "
                   "differ.")
@click.option("--classes", "names_file", type=NamedPath(), metavar="FILE",
              help="Names of the classes of --from, one per line, or a JSON list.  [default: the checkpoint's, or "
                   "those of the known dataset with as many]")
@click.option("--centerness-order", type=click.Choice(["released", "anchor"]),
              help="Order of the centerness map.  [default: the checkpoint's, or anchor]")
@click.option("--input-size", type=FrameSize(),
              help="What frames are resized to.  [default: the recipe's, or the checkpoint's]")
@click.option("--resume", is_flag=True, help="Resume the run in DIR with its network and options.")
@click.option("--overwrite", is_flag=True, help="Replace the run in DIR.")
@click.option("--iterations", type=_numbers("iterations"), help="Length of the schedule.  [default: the recipe's]")
@click.option("--pairs", "pairs_per_batch", type=_numbers("pairs_per_batch"),
              help="Frame pairs per step and process.  [default: the recipe's]")
@click.option("--rate", "learning_rate", type=_numbers("learning_rate"), help="Learning rate.  [default: the recipe's]")
@click.option("--precision", type=click.Choice(["f32", "bf16"]), help="Arithmetic.  [default: the recipe's]")
@click.option("--seed", type=_numbers("seed"),
              help="Random seed of weights, samples and augmentation.  [default: the recipe's]")
@click.option("--validate-every", type=_numbers("validate_every"), metavar="ITERATIONS", help="[default: the recipe's]")
@click.option("--save-every", type=_numbers("save_every"), metavar="ITERATIONS", help="[default: the recipe's]")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", help="Where the network runs.")
@click.option("--threads", type=click.IntRange(1, 1024), help="CPU threads.  [default: PyTorch's choice]")
@click.option("--workers", type=click.IntRange(min=0), default=1, help="Processes that read frames.")
@click.version_option(__version__, prog_name="stmask-train")
def main(annotations: Path, folder: Path, frames: Path | None, val_annotations: Path | None, val_frames: Path | None,
         no_val: bool, recipe: str | None, checkpoint: Path | None, names_file: Path | None,
         centerness_order: str | None, input_size: tuple[int, int] | None, resume: bool, overwrite: bool, device: str,
         threads: int | None, workers: int, **overrides: Any) -> None:
    """Train or fine-tune a network on ANNOTATIONS, a dataset in YouTube-VIS format (masks as RLE or polygons).

    Writes a checkpoint with the released parameter names that includes its configuration. A run can be interrupted and
    resumed with the same outcome. For several GPUs, start it with torchrun.
    """
    _require_torch()
    import torch

    from ..config import CenternessOrder
    from .data import Data
    from .processes import join_processes
    from .run import open_validation, resume_run, start_run, train
    from .run_folder import claimed_folder

    overrides = {name: value for name, value in overrides.items() if value is not None}
    given = _given({"recipe": recipe, "overwrite": overwrite or None, "from": checkpoint, "classes": names_file,
                    "centerness_order": centerness_order, "input_size": input_size, **overrides})
    if resume and given:
        raise InputError(f"--resume continues with the options of the run; leave out {', '.join(given)}")
    if no_val and (not resume or val_annotations or val_frames):
        raise InputError("--no-val is for a run that is resumed, and excludes --val and --val-frames")
    if names_file is not None and checkpoint is None:
        raise InputError("--classes names the classes of a checkpoint; give it with --from, or leave --classes out")
    if threads is not None:
        torch.set_num_threads(threads)
    data = Data.open(annotations, frames)
    resumed = resume_run(folder, data.class_names) if resume else None
    validation = None if no_val else open_validation(val_annotations, val_frames, resumed)
    if validation is not None:
        validation.check_classes(data)
    if resumed is not None:
        start = resumed
    else:
        order = None if centerness_order is None else CenternessOrder(centerness_order)
        if recipe is None:
            recipe = "demo" if checkpoint is None else "fine-tune"
        start = start_run(_recipe(recipe, overrides), data.class_names, checkpoint, order, input_size,
                          names_file)
    inputs = [path for path in (checkpoint, names_file, annotations, val_annotations) if path is not None]
    inputs += [Path(recipe)] if recipe else []
    tell = Teller()
    with join_processes(device) as process, ExitStack() as stack:
        if process.is_first:
            if validation is not None:
                validation.read_all()
            stack.enter_context(claimed_folder(folder, overwrite=overwrite, resume=resume, inputs=inputs))
        path = train(start, data, validation, folder, process, num_workers=workers, say=partial(tell, click.echo))
        if process.is_first:
            tell(click.echo, f"wrote {path}; export it with: {shlex.join(['stmask-export', str(path)])}")
    tell.check()


def _recipe(name: str, overrides: dict[str, Any]) -> Any:
    from dataclasses import replace

    from .recipe import read_recipe

    recipe = read_recipe(name)
    return replace(recipe, options=replace(recipe.options, **overrides))


def _given(values: dict[str, Any]) -> list[str]:
    """The options among `values` that were given, spelt as on the command line."""
    options = {"pairs_per_batch": "--pairs", "learning_rate": "--rate"}
    return [options.get(name, "--" + name.replace("_", "-")) for name, value in values.items() if value is not None]


def _require_torch() -> None:
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise InputError("training needs PyTorch: pip install 'stmask-deploy[train]'") from error

