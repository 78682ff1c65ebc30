"""The command `stmask-export`."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from stmask_deploy.console import Command
from stmask_deploy.errors import InputError

from .requirements import require_export_packages

_OVERRIDES = ("classes", "input_size", "anchor_ratios", "anchor_scales", "temporal_level", "roi_size")


def parsed(parse: str) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """A click callback that reads a value with the function of this name in `overrides`."""

    def callback(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> Any:
        from . import overrides

        try:
            return None if value is None else getattr(overrides, parse)(value)
        except InputError as error:
            raise click.BadParameter(str(error)) from error

    return callback


def variant_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what a checkpoint's tensors cannot."""
    options = [
        click.option("--sha256", metavar="HEX", help="Refuse the checkpoint unless it has this digest."),
        click.option("--classes", type=click.Path(path_type=Path), metavar="FILE",
                     help="Class names, one a line or a JSON list. [default: from the checkpoint or its dataset]"),
        click.option("--input-size", callback=parsed("parse_size"), metavar="HxW",
                     help="Size frames are resized to. [default: 360x640, or the checkpoint's own]"),
        click.option("--anchor-ratios", callback=parsed("parse_numbers"), metavar="R,R,R",
                     help="Height / width of the anchors of kernels of one shape. [default: 1,0.5,2]"),
        click.option("--anchor-scales", callback=parsed("parse_numbers"), metavar="S,...",
                     help="Scales of the anchors of one kernel. [default: 2^(i/n)]"),
        click.option("--temporal-level", callback=parsed("parse_level"), metavar="PN",
                     help="Pyramid level the temporal network reads. [default: P4]"),
        click.option("--roi-size", type=int, help="Bins a side of its RoIs. [default: 7]"),
        click.option("--centerness-order", type=click.Choice(["released", "anchor"]),
                     help="Order of the centerness map. [default: released, or the checkpoint's own]"),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def load_with_overrides(path: Path, values: dict[str, Any]) -> Any:
    """The checkpoint at `path` with the values of `variant_options`, taken out of `values`."""
    from dataclasses import replace

    from stmask_deploy.config import CenternessOrder
    from stmask_deploy.models.checkpoint import load_checkpoint

    from .overrides import Overrides

    checkpoint = load_checkpoint(path, values.pop("sha256"))
    order = values.pop("centerness_order")
    chosen = Overrides(centerness_order=None if order is None else CenternessOrder(order),
                       **{name: values.pop(name) for name in _OVERRIDES})
    notes = checkpoint.notes
    if chosen.classes is not None:
        notes = (*(note for note in notes if not note.startswith("class names:")),
                 f"class names: {chosen.classes.name}")
    return replace(checkpoint, config=chosen.apply(checkpoint.config), notes=notes)


@click.command(cls=Command)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR",
              help="The bundle's folder. [default: CHECKPOINT's name and _stmask, beside it]")
@click.option("--dcn", type=click.Choice(["native", "gridsample"]), default="native", show_default=True,
              help="Deformable convolution as the ONNX operator, or as standard operators for older runtimes.")
@click.option("--opset", type=int, default=20, show_default=True, help="ONNX operator set, 20 to 22.")
@click.option("--openvino/--no-openvino", default=False, help="Write OpenVINO IR too.")
@click.option("--openvino-weights", type=click.Choice(["f32", "f16"]), default="f32", show_default=True,
              help="Weights of the IR; f16 halves its size.")
@click.option("--max-candidates", type=int, default=512, show_default=True, metavar="K",
              help="Rows that leave the frame graph.")
@click.option("--candidate-threshold", type=float, default=0.05, show_default=True,
              help="Foreground probability that makes an anchor a candidate.")
@click.option("--simplify/--no-simplify", default=True, show_default=True, help="Simplify with onnxsim, and check it.")
@click.option("--tolerance", type=click.FloatRange(0, 1),
              help="Largest error, as a share of an output's range. [default: 1e-4; 5e-2 for f16 weights]")
@click.option("--dry-run", is_flag=True, help="Print the plan and write nothing.")
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is there.")
@variant_options
def main(checkpoint: Path, output: Path | None, dcn: str, openvino: bool, openvino_weights: str, dry_run: bool,
         overwrite: bool, **values: Any) -> None:
    """Turn a CHECKPOINT (.pth or .safetensors) into a bundle: frame.onnx, temporal.onnx, stmask.json.

    The variant is read from the tensors. Every export is compared with PyTorch, output by output, before it is kept.

    \b
    Examples:
      stmask-export model.pth
      stmask-export model.pth -o bundle --openvino
      stmask-export model.pth --dry-run
    """
    require_export_packages()
    loaded = load_with_overrides(checkpoint, values)
    from .exporter import ExportOptions, export_checkpoint
    from .lowering import Dcn
    from .plan import assumptions, plan_lines

    options = ExportOptions(dcn=Dcn(dcn), openvino_weights=openvino_weights if openvino else None, **values)
    folder = output or checkpoint.with_name(f"{checkpoint.stem}_stmask")
    click.echo(f"{loaded.config.variant}, {loaded.config.num_classes - 1} classes  (sha256 {loaded.sha256[:16]}...)")
    for line in (*loaded.notes, *assumptions(loaded.config)):
        click.echo(f"  {line}")
    if dry_run:
        click.echo("\n".join([*plan_lines(loaded.config, options), f"would write {folder}"]))
        return
    verification = export_checkpoint(loaded, folder, options, overwrite=overwrite,
                                     say=lambda line: click.echo(f"  {line}"))
    reached = ", ".join(f"{name} {error:.1e}" for name, error in verification.reached().items())
    click.echo(f"wrote {folder}  (verified against PyTorch; largest error as a share of range: {reached})")
