"""The command `stmask-verify`."""
from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from stmask_deploy.console import Command
from stmask_deploy.errors import InputError, StmaskError

from .requirements import require_export_packages

if TYPE_CHECKING:
    from stmask_deploy.runtime.model import Model

MIN_AGREEMENT = 0.99  # share of rows that must be the same, in both directions
NUM_PICTURES = 3  # frames of the video whose tensors are compared


@click.command(cls=Command)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("video", type=click.Path(path_type=Path), required=False)
@click.option("--max-frames", type=click.IntRange(min=2), default=50, show_default=True,
              help="Frames of VIDEO to track.")
@click.option("--tolerance", type=click.FloatRange(0, 1),
              help="Largest error, as a share of an output's range. [default: 1e-4; 5e-2 for f16]")
def main(bundle: Path, checkpoint: Path, video: Path | None, max_frames: int, tolerance: float | None) -> None:
    """Compare a BUNDLE with the CHECKPOINT it was exported from, on every backend it holds.

    Each output of each graph is compared by name, shape and value; with a VIDEO (file or image folder), its frames are
    used and whole tracks are compared too. Exit code 1 if anything differs by more than the tolerance.
    """
    require_export_packages()
    from dataclasses import replace

    from stmask_deploy.bundle import read_description
    from stmask_deploy.models.checkpoint import load_checkpoint

    from .verify import TOLERANCES, verify_bundle

    description = read_description(bundle)
    loaded = load_checkpoint(checkpoint)
    if loaded.sha256 != description.checkpoint_sha256:
        raise InputError(f"{bundle} was exported from {description.checkpoint_name} (sha256 "
                         f"{description.checkpoint_sha256[:16]}...), {checkpoint} has {loaded.sha256[:16]}...")
    model = replace(loaded, config=description.model).build()
    pictures = None if video is None else _pictures(video)
    tolerances = TOLERANCES if tolerance is None else dict.fromkeys(TOLERANCES, tolerance)
    verification = verify_bundle(bundle, model, tolerances, pictures)
    click.echo("\n".join(verification.lines()))
    problems = [] if verification.passed else [verification.summary()]
    if video is not None:
        problems += _compare_tracks(bundle, description, model, video, max_frames)
    if problems:
        raise StmaskError("; ".join(problems))
    click.echo("verified: the graphs compute what PyTorch computes")


def _pictures(video: Path) -> list[Any]:
    from itertools import islice

    from stmask_deploy.runtime.sources import open_source

    with open_source(video) as source:
        pictures = [frame.image for frame in islice(source, NUM_PICTURES)]
    if len(pictures) < 2:
        raise InputError(f"{video} holds {len(pictures)} frame; at least two are needed")
    return pictures


def _compare_tracks(folder: Path, description: Any, model: Any, video: Path, max_frames: int) -> Iterator[str]:
    """Track `video` in PyTorch and on each backend; yields what is wrong."""
    from stmask_deploy.runtime.loading import open_bundle
    from stmask_deploy.runtime.model import Model
    from stmask_deploy.runtime.options import RunOptions
    from stmask_deploy.runtime.timing import NoTimer
    from stmask_deploy.runtime.tracker import SCORE_THRESHOLD

    from .torch_backend import torch_bundle
    from .track_agreement import TrackComparison
    from .verify import exported_backends

    # A bundle may hold fewer candidates than the released threshold lets through.
    options = RunOptions(memory="exact", score_threshold=max(SCORE_THRESHOLD, description.candidate_threshold))

    def opened(bundle: Any) -> Model:
        return Model(bundle, options, NoTimer())

    backends = exported_backends(description)
    models = {name: opened(open_bundle(folder, name, device="cpu")) for name in backends}
    runs = [iter(each.track(video, max_frames=max_frames))
            for each in (opened(torch_bundle(model, description)), *models.values())]
    comparisons = {name: TrackComparison() for name in backends}
    for reference, *found in zip(*runs, strict=True):
        for name, result in zip(backends, found, strict=True):
            comparisons[name].add(reference, result)
    half = description.openvino_weights == "f16"
    for name, comparison in comparisons.items():
        agreement = comparison.result()
        judged = not (name == "openvino" and half)
        click.echo(f"{name:12s} tracks  {agreement.line()}{'' if judged else '  (not judged: f16 weights)'}")
        if judged and min(agreement.recall, agreement.precision) < MIN_AGREEMENT:
            yield f"tracks on {name} differ from PyTorch's (recall {agreement.recall:.4f}, " \
                  f"precision {agreement.precision:.4f}, at least {MIN_AGREEMENT} is needed)"
