"""The command `stmask-verify`."""
from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stmask_deploy import __version__
from stmask_deploy.console import Command
from stmask_deploy.errors import EXIT_DAMAGED_INPUT, InputError, StmaskError
from stmask_deploy.option_types import FloatRange, NamedPath
from stmask_deploy.wording import counted

from .requirements import require_export_packages

if TYPE_CHECKING:
    from .track_agreement import TrackAgreement

MIN_AGREEMENT = 0.99  # minimum recall and precision of the rows
NUM_PICTURES = 3  # number of frames of the video whose tensors are compared


_EPILOG = """\b
Exit codes: 0 all agree; 1 something differs by more than the tolerance, or the command failed; 2 bad input or
usage; 3 all agree, but VIDEO is damaged; 5 a backend is missing; 130 interrupted.
"""


@click.command(cls=Command, epilog=_EPILOG)
@click.argument("bundle", type=NamedPath())
@click.argument("checkpoint", type=NamedPath())
@click.argument("video", type=NamedPath(), required=False)
@click.option("--max-frames", type=click.IntRange(min=2), default=50, show_default=True,
              help="Frames of VIDEO to track.")
@click.option("--tolerance", type=FloatRange(0, 1),
              help="Largest error, as a share of an output's range; given, for f16 too. [default: 1e-4; 5e-2 for f16]")
@click.version_option(__version__, prog_name="stmask-verify")
@click.pass_context
def main(ctx: click.Context, bundle: Path, checkpoint: Path, video: Path | None, max_frames: int,
         tolerance: float | None) -> None:
    """Compare a BUNDLE with the CHECKPOINT it was exported from, on every backend it holds.

    Each output of each graph is compared by name, shape and value; rows of the frame graph also for every anchor, by
    the mean error of each pyramid level (levels/...). f16 graphs must stay in the range of f16. With a VIDEO (file or
    image folder), its frames are used, and complete tracks are compared too; those of f16 are reported but not judged.
    int8 graphs are opened but not compared, since stmask-export has already judged them.
    """
    require_export_packages()
    from stmask_deploy.bundle import read_description
    from stmask_deploy.models.checkpoint import digest_of, load_checkpoint

    from .onnx_model import require_onnxruntime
    from .track_agreement import compare_tracks
    from .verify import TOLERANCES, exported_graphs, verify_bundle

    require_onnxruntime()
    description = read_description(bundle)
    sha256 = digest_of(checkpoint)
    if sha256 != description.checkpoint_sha256:
        raise InputError(f"{bundle} was exported from {description.checkpoint_name} (sha256 "
                         f"{description.checkpoint_sha256[:16]}...), {checkpoint} has {sha256[:16]}...; give that file")
    model = load_checkpoint(checkpoint, config=description.model).build()
    pictures = None if video is None else _pictures(video)
    verification = verify_bundle(bundle, model, tolerance, pictures)
    click.echo("\n".join(verification.lines()))
    opened = [name for _, _, name in exported_graphs(description) if name not in TOLERANCES]
    for name in opened:
        click.echo(f"{name}: opened, not compared")
    problems = [] if verification.passed else [verification.summary()]
    damage = None
    if video is not None:
        agreements, damage = compare_tracks(bundle, description, model, video, max_frames)
        problems += _track_problems(agreements)
    if problems:
        raise StmaskError("; ".join(problems))
    beside = f" (except {', '.join(opened)})" if opened else ""
    click.echo(f"verified: the graphs compute what PyTorch computes{beside}")
    if damage is not None and damage.is_damaged:
        click.echo(f"warning: {video} is damaged: {damage}; only the readable part was compared", err=True)
        ctx.exit(EXIT_DAMAGED_INPUT)


def _pictures(video: Path) -> list[Any]:
    from itertools import islice

    from stmask_deploy.runtime.sources import open_source

    with open_source(video) as source:
        pictures = [frame.image for frame in islice(source, NUM_PICTURES)]
    if len(pictures) < 2:
        raise InputError(f"{video} holds {counted(len(pictures), 'frame')}; at least two are needed")
    return pictures


def _track_problems(agreements: Mapping[str, TrackAgreement]) -> list[str]:
    """Print how far the tracks agree, and return the problems."""
    problems = []
    for name, agreement in agreements.items():
        judged = "f16" not in name
        click.echo(f"{name:12s} tracks  {agreement.line()}{'' if judged else '  (not judged)'}")
        if judged and min(agreement.recall, agreement.precision) < MIN_AGREEMENT:
            problems.append(f"tracks on {name} differ from PyTorch's (recall {agreement.recall:.4f}, "
                            f"precision {agreement.precision:.4f}, at least {MIN_AGREEMENT} is needed)")
    return problems
