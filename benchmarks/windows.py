"""Time saved by computing prototypes only inside the boxes of objects, by the fraction of the frame they cover.

    python benchmarks/windows.py model_stmask --json windows.json

The frame graph that outputs all prototypes takes turns in one process with the one that outputs P3, followed by the
prototype graph on windows of several sizes.
"""
from __future__ import annotations

from collections.abc import Callable, Iterator
from math import sqrt
from pathlib import Path
from typing import Any

import click
import numpy as np
from report_file import ReportFile, new_report, report_options
from rows import parse_rows
from turns import turns

from stmask_deploy.bundle import read_description
from stmask_deploy.console import Command
from stmask_deploy.errors import InputError, StmaskError
from stmask_deploy.runtime.loading import check_file, run_outputs
from stmask_deploy.runtime.opening import open_backend
from stmask_deploy.runtime.prototypes import prototypes_within
from stmask_deploy.synthetic.clips import render

SCHEMA = "stmask-windows/1"
SHARES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0)  # fraction of the frame's area inside the box around all objects
BASE = "whole frame"


def middle_box(share: float) -> Any:
    """(1, 4) a centred box with this fraction of the frame's area, or (0, 4) for a fraction of 0."""
    if not share:
        return np.zeros((0, 4), np.float32)
    half = sqrt(share) / 2
    return np.array([[0.5 - half, 0.5 - half, 0.5 + half, 0.5 + half]], np.float32)


def runs_of(folder: Path, backend: str, precision: str, threads: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield (name, function that computes one frame) for the whole frame and for every fraction."""
    description = read_description(folder)
    picture = next(render("val", 7, 1, description.model.input_size).pictures())[None]
    windowed = run_outputs(description, description.roles)
    whole = run_outputs(description, [role for role in description.roles if role != "prototypes"])

    def opened(role: str, outputs: tuple[str, ...] | None = None) -> Any:
        path = description.graph_path(folder, role, backend, precision)
        check_file(path, backend, precision)
        return open_backend(backend, path, device="cpu", precision=precision, threads=threads, outputs=outputs)

    dense, frame, prototypes = opened("frame", whole), opened("frame", windowed), opened("prototypes")
    yield BASE, lambda: dense.run({"frame": picture})
    for share in SHARES:
        box = middle_box(share)
        yield f"{share:.0%}", lambda box=box: prototypes_within(box, frame.run({"frame": picture})["p3"], prototypes)


@click.command(cls=Command)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--rows", default="onnxruntime:f32,openvino:f32,openvino:bf16", show_default=True,
              help="BACKEND:PRECISION, separated by commas.")
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=15, show_default=True)
@report_options
def main(bundle: Path, rows: str, threads: int, rounds: int, report_file: ReportFile) -> None:
    """Measure the frame and prototype graphs of BUNDLE for windows of several sizes."""
    report: dict[str, Any] = {**new_report(SCHEMA), "threads": threads,
                              "variant": read_description(bundle).model.variant, "rows": {}}
    for row in parse_rows(rows):
        try:
            samples = turns(dict(runs_of(bundle, row.backend, row.precision, threads)), rounds)
        except StmaskError as error:  # the machine or the bundle lacks something
            click.echo(f"{row} is left out: {error}", err=True)
            continue
        medians = {name: round(float(np.median(values)), 2) for name, values in samples.items()}
        report["rows"][str(row)] = {"milliseconds": medians, "samples": {name: [round(one, 2) for one in values]
                                                                         for name, values in samples.items()}}
        report_file.write(report)
        click.echo(f"{row}, {threads} threads; by the share of the frame that is around objects:")
        for name, value in medians.items():
            click.echo(f"  {name:12s} {value:8.1f} ms  {value / medians[BASE]:5.2f}x")
    if not report["rows"]:
        raise InputError("no row could be measured; the reasons are above")


if __name__ == "__main__":
    main()
