"""Gains and costs of `--detect-every K`: speed, average precision, and agreement with detection in every frame.

    python benchmarks/key_frames.py synth/val --json key_frames.json
"""
from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from dataset import open_dataset
from report_file import ReportFile, new_report, report_options

from stmask_deploy.bench.alternation import back_and_forth
from stmask_deploy.bench.tables import format_table
from stmask_deploy.console import Command
from stmask_deploy.datasets.annotations import Annotations, Video
from stmask_deploy.errors import InputError
from stmask_deploy.evaluation.compare_runs import compare_runs
from stmask_deploy.evaluation.evaluate import evaluate
from stmask_deploy.evaluation.run_file import read_run_file
from stmask_deploy.evaluation.sources import read_result_list
from stmask_deploy.runtime.model import Model, load
from stmask_deploy.runtime.run import run_video
from stmask_deploy.runtime.sources import open_source

SCHEMA = "stmask-key-frames/1"


@click.command(cls=Command, context_settings={"show_default": True})
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option("--bundle", type=click.Path(path_type=Path), help="[default: the demo model]")
@click.option("--every", "intervals", multiple=True, type=click.IntRange(min=1), default=(1, 2, 3, 5),
              help="K; may be repeated. 1 is measured always: the others are compared with it.")
@click.option("--backend", type=click.Choice(["onnxruntime", "openvino"]), default="onnxruntime")
@click.option("--precision", default="f32")
@click.option("--threads", type=click.IntRange(min=1), default=2, help="CPU threads of the graphs.")
@click.option("--max-videos", type=click.IntRange(min=1), help="The first videos only.")
@report_options
def main(dataset: Path, bundle: Path | None, intervals: Sequence[int], backend: str, precision: str, threads: int,
         max_videos: int | None, report_file: ReportFile) -> None:
    """Measure on DATASET, a folder with instances.json and JPEGImages in YouTube-VIS format."""
    report = new_report(SCHEMA)
    truth, frames = open_dataset(dataset, max_videos)
    models = {every: load(bundle, backend, "auto", precision, threads, detect_every=every)
              for every in sorted({1, *intervals})}
    with tempfile.TemporaryDirectory() as folder:
        seconds = run_all(models, truth, frames, Path(folder))
        rows = [score(every, truth, Path(folder), seconds[every]) for every in models]
    report_file.write({**report, "device": models[1].device, "checkpoint": models[1].description.checkpoint_name,
                       "dataset": dataset.name, "videos": len(truth.videos), "rows": rows})
    click.echo(table(rows))


def run_all(models: dict[int, Model], truth: Annotations, frames: Path, folder: Path) -> dict[int, list[float]]:
    """Run every model on every video, writing to `folder`/K/VIDEO; returns seconds by K and video.

    They take turns, in reverse order in every second video. All run once before, on the first one, which is not
    counted.
    """
    seconds: dict[int, list[float]] = {every: [] for every in models}

    def run(every: int, video: Video) -> float:
        target = folder / str(every) / video_name(video)
        target.parent.mkdir(exist_ok=True)
        with open_source(frames / video_name(video)) as source:
            if source.num_frames != video.length:
                raise InputError(f"{frames / video_name(video)} holds {source.num_frames} images, and the "
                                 f"annotations have {video.length}: annotate every frame, or remove the others")
            return run_video(models[every], source, target, draw=False, overwrite=True).seconds

    for every in models:
        run(every, truth.videos[0])
    for video, order in zip(truth.videos, back_and_forth(models, len(truth.videos)), strict=True):
        for every in order:
            seconds[every].append(run(every, video))
    return seconds


def video_name(video: Video) -> str:
    """The folder of its frames, relative to JPEGImages."""
    return Path(video.file_names[0]).parent.as_posix()


def score(every: int, truth: Annotations, folder: Path, seconds: Sequence[float]) -> dict[str, Any]:
    """One row: speed, scores against the annotations, and means over the videos of the agreement with K = 1."""
    given = read_result_list(folder / str(every), truth, ())
    scores = evaluate(truth, given.entries, video_ids=given.video_ids)
    agreed = [compare_runs(read_run_file(folder / "1" / video_name(video)),
                           read_run_file(folder / str(every) / video_name(video))) for video in truth.videos]
    return {"detect_every": every, "fps": round(sum(video.length for video in truth.videos) / sum(seconds), 3),
            "ap": scores.ap, "ap50": scores.ap50, "ap75": scores.ap75,
            "switches_per_ten_tracks": scores.identities.switches_per_ten_tracks,
            "agreement": {"ap": _mean([one.ap for one in agreed]), "mean_iou": _mean([one.mean_iou for one in agreed]),
                          "recall": _mean([one.recall for one in agreed])}}


def _mean(values: Sequence[float | None]) -> float | None:
    """Mean over the videos in which the score is defined."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table, one line per K."""
    cells = [("detect every", "FPS", "times K=1", "AP", "AP50", "switches / 10 tracks", "agreement AP", "mask IoU")]
    for row in rows:
        values = (row["ap"], row["ap50"], row["switches_per_ten_tracks"], row["agreement"]["ap"],
                  row["agreement"]["mean_iou"])
        cells.append((str(row["detect_every"]), f"{row['fps']:.2f}", f"{row['fps'] / rows[0]['fps']:.2f}",
                      *("-" if value is None else f"{value:.2f}" for value in values)))
    return format_table(cells, markdown=True)


if __name__ == "__main__":
    main()
