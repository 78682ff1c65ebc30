"""The command `stmask-export`."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stmask_deploy import __version__
from stmask_deploy.bundle import CANDIDATE_THRESHOLD, MAX_CANDIDATES
from stmask_deploy.console import Command
from stmask_deploy.errors import InputError
from stmask_deploy.option_types import FloatRange, FrameSize, NamedPath
from stmask_deploy.teller import Teller
from stmask_deploy.tracking_config import TrackingConfig

from .overrides import Overrides, parse_level, parse_numbers
from .requirements import require_export_packages

if TYPE_CHECKING:
    from stmask_deploy.models.checkpoint import Checkpoint

    from .int8 import Int8Options

# The options that are passed on together.
_VARIANT = ("sha256", "classes", "input_size", "anchor_ratios", "anchor_scales", "temporal_level", "roi_size",
            "centerness_order", "tracking")
_INT8 = ("with_int8", "calibration", "calibration_annotations", "calibration_frames", "int8_agreement", "int8_ap_loss")


def parsed(parse: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """A click callback that parses a value with `parse`."""

    def callback(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> Any:
        try:
            return None if value is None else parse(value)
        except InputError as error:
            raise click.BadParameter(str(error)) from error

    return callback


def variant_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options for settings that cannot be inferred from a checkpoint's tensors."""
    options = [
        click.option("--sha256", metavar="HEX", help="Refuse the checkpoint unless it has this digest."),
        click.option("--classes", type=NamedPath(), metavar="FILE",
                     help="Class names, one per line or as a JSON list. [default: from the checkpoint or its dataset]"),
        click.option("--input-size", type=FrameSize(),
                     help="Size frames are resized to. [default: 360x640, or the checkpoint's own]"),
        click.option("--anchor-ratios", callback=parsed(parse_numbers), metavar="R,R,R",
                     help="Height / width of the anchors, one per kernel, where all kernels have one shape. "
                          "[default: 1,0.5,2]"),
        click.option("--anchor-scales", callback=parsed(parse_numbers), metavar="S,...",
                     help="Scales of the anchors of one kernel. [default: 2^(i/n)]"),
        click.option("--temporal-level", callback=parsed(parse_level), metavar="PN",
                     help="Pyramid level the temporal network reads. [default: P4]"),
        click.option("--roi-size", type=int, help="Its RoI size, in bins per side. [default: 7]"),
        click.option("--centerness-order", type=click.Choice(["released", "anchor"]),
                     help="Order of the centerness map. [default: released, or the checkpoint's own]"),
        click.option("--tracking", callback=parsed(TrackingConfig.parse), metavar="TRACKER,SETTING=N,...",
                     help="How stmask-run tracks with this bundle unless told otherwise, for instance "
                          "paper,alpha=4,epsilon=1.6; settings as in stmask-run --help. [default: "
                          "released, or the checkpoint's own]"),
    ]
    for option in reversed(options):
        command = option(command)
    return command


def load_with_overrides(path: Path, *, sha256: str | None, classes: Path | None, centerness_order: str | None,
                        **chosen: Any) -> Checkpoint:
    """Load the checkpoint at `path` with the values of `variant_options`."""
    from dataclasses import replace

    from stmask_deploy.config import CenternessOrder
    from stmask_deploy.models.checkpoint import load_checkpoint

    overrides = Overrides(centerness_order=None if centerness_order is None else CenternessOrder(centerness_order),
                          **chosen)
    checkpoint = load_checkpoint(path, sha256, overrides.anchor_ratios)
    if classes is not None:
        checkpoint = checkpoint.named(classes)
    return replace(checkpoint, config=overrides.apply(checkpoint.config))


def int8_options(*, with_int8: bool, calibration: Path | None, calibration_annotations: Path | None,
                 calibration_frames: int | None, int8_agreement: float | None, int8_ap_loss: float | None
                 ) -> Int8Options | None:
    """The `Int8Options` of a command line, None without --int8.

    Raises:
        UsageError: an option is given without another one that it requires.
    """
    from .int8 import Int8Options
    from .int8_gate import Limits

    if with_int8 and calibration is None:
        raise click.UsageError("--int8 needs --calibration VIDEO, a video that shows what the model will see")
    given = (calibration, calibration_annotations, calibration_frames, int8_agreement, int8_ap_loss)
    if not with_int8 and any(one is not None for one in given):
        raise click.UsageError("--calibration, --calibration-* and --int8-* belong to --int8; give that too")
    if int8_ap_loss is not None and calibration_annotations is None:
        raise click.UsageError("--int8-ap-loss needs --calibration-annotations JSON to measure AP on")
    if calibration is None:
        return None
    limits = {"min_agreement": int8_agreement, "max_ap_loss": int8_ap_loss}
    frames = {} if calibration_frames is None else {"frames": calibration_frames}
    return Int8Options(calibration, calibration_annotations, **frames,
                       limits=Limits(**{name: value for name, value in limits.items() if value is not None}))


_EPILOG = """\b
Exit codes: 0 done; 1 a graph or int8 differs too much, or the export failed; 2 bad input or usage, or a package is
missing; 4 the bundle exists already or could not be written; 130 interrupted, with nothing written.
"""


@click.command(cls=Command, epilog=_EPILOG)
@click.argument("checkpoint", type=NamedPath())
@click.option("-o", "--output", type=NamedPath(), metavar="DIR",
              help="Output folder. [default: CHECKPOINT_stmask, beside the checkpoint]")
@click.option("--dcn", type=click.Choice(["native", "gridsample"]), default="native", show_default=True,
              help="Deformable convolution as the ONNX operator, or as standard operators for older runtimes.")
@click.option("--opset", type=int, default=20, show_default=True, help="ONNX operator set, 20 or 21.")
@click.option("--openvino/--no-openvino", default=False, help="Write OpenVINO IR too.")
@click.option("--openvino-weights", type=click.Choice(["f32", "f16"]),
              help="Weights of the IR that --openvino writes; f16 halves its size. [default: f32]")
@click.option("--half", is_flag=True, help="Write graphs of f16 too, for NVIDIA GPUs (stmask-run --precision f16).")
@click.option("--int8", "with_int8", is_flag=True,
              help="Write int8 graphs too (stmask-run --precision int8); fails if they differ too much from f32.")
@click.option("--calibration", type=NamedPath(), metavar="VIDEO",
              help="Video or folder of images that shows what the model will see; needed by --int8.")
@click.option("--calibration-annotations", type=NamedPath(), metavar="JSON",
              help="YouTube-VIS annotations of VIDEO, to judge int8 by AP as well.")
@click.option("--calibration-frames", type=click.IntRange(min=1), metavar="N",
              help="Calibrate with at most N frames, spread over VIDEO. [default: 100]")
@click.option("--int8-agreement", type=FloatRange(0, 100), metavar="PERCENT",
              help="Minimum recall and precision of int8 against f32 on VIDEO. [default: 90]")
@click.option("--int8-ap-loss", type=FloatRange(0, 100), metavar="POINTS",
              help="Largest loss of AP on the annotations. [default: 1]")
@click.option("--max-candidates", type=click.IntRange(min=1), default=MAX_CANDIDATES, show_default=True, metavar="K",
              help="Most candidates that leave the frame graph.")
@click.option("--candidate-threshold", type=FloatRange(0, 1, max_open=True), default=CANDIDATE_THRESHOLD,
              show_default=True,
              help="Foreground probability that makes an anchor a candidate.")
@click.option("--simplify/--no-simplify", default=True, show_default=True, help="Simplify with onnxsim, and check it.")
@click.option("--tolerance", type=FloatRange(0, 1),
              help="Largest error, as a share of an output's range; given, for f16 too. [default: 1e-4; 5e-2 for f16]")
@click.option("--dry-run", is_flag=True,
              help="Check everything that can be checked beforehand, print the plan and write nothing.")
@click.option("--overwrite", is_flag=True, help="Replace an existing bundle.")
@variant_options
@click.version_option(__version__, prog_name="stmask-export")
def main(checkpoint: Path, output: Path | None, dcn: str, openvino: bool, openvino_weights: str | None,
         dry_run: bool, overwrite: bool, **values: Any) -> None:
    """Export a CHECKPOINT (.pth or .safetensors) as a bundle: ONNX graphs and stmask.json.

    The model variant is inferred from the tensors. Every output of the exported graphs is compared with PyTorch before
    the bundle is written.

    \b
    Examples:
      stmask-export model.pth
      stmask-export model.pth -o bundle --openvino
      stmask-export model.pth --int8 --calibration video.mp4
      stmask-export model.pth --dry-run
    """
    require_export_packages()
    if openvino_weights is not None and not openvino:
        raise click.UsageError("--openvino-weights belongs to --openvino; give that too")
    loaded = load_with_overrides(checkpoint, **{name: values[name] for name in _VARIANT})
    from .exporter import ExportOptions, check_export, export_checkpoint
    from .lowering import Dcn
    from .plan import assumptions, plan_lines

    options = ExportOptions(
        dcn=Dcn(dcn), openvino_weights=(openvino_weights or "f32") if openvino else None,
        int8=int8_options(**{name: values[name] for name in _INT8}),
        **{name: value for name, value in values.items() if name not in (*_VARIANT, *_INT8)})
    folder = output or checkpoint.with_name(f"{checkpoint.stem}_stmask")
    tell = Teller()
    tell(click.echo,
         f"{loaded.config.variant}, {loaded.config.num_classes - 1} classes  (sha256 {loaded.sha256[:16]}...)")
    for line in (*loaded.notes, *assumptions(loaded.config)):
        tell(click.echo, f"  {line}")
    if dry_run:
        description = check_export(loaded, folder, options, overwrite=overwrite)
        click.echo("\n".join([*plan_lines(description, options), f"would write {folder}"]))
        return
    verification = export_checkpoint(loaded, folder, options, overwrite=overwrite,
                                     say=lambda line: tell(click.echo, f"  {line}"))
    reached = ", ".join(f"{name} {error:.1e}" for name, error in verification.reached().items())
    tell(click.echo, f"wrote {folder}  (verified against PyTorch; largest error as a share of range: {reached})")
    tell.check()
