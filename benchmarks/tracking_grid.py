"""Which tracker and settings suit a network: accuracy and identity switches over a grid, with frames detected once.

    stmask-synth tune --split val --clips 150
    python benchmarks/tracking_grid.py tune/val --skip 30

Choose on clips that are not used for reporting: `--skip 30` leaves out those of the val split. Pass the best row to
`stmask-export --tracking`, or put it in the recipe of a new network (`tracking` in its `model`).
"""
from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from dataset import open_dataset
from report_file import ReportFile, new_report, report_options

from stmask_deploy.bench.tables import format_table
from stmask_deploy.bundle import read_description
from stmask_deploy.config import ModelConfig
from stmask_deploy.console import Command
from stmask_deploy.datasets.annotations import Annotations, Video
from stmask_deploy.datasets.frames import read_frame
from stmask_deploy.errors import InputError
from stmask_deploy.evaluation.evaluate import evaluate
from stmask_deploy.evaluation.track_dataset import in_categories
from stmask_deploy.pretrained import demo_bundle
from stmask_deploy.runtime.detector import Detector
from stmask_deploy.runtime.loading import Bundle, open_bundle
from stmask_deploy.runtime.options import RunOptions
from stmask_deploy.runtime.pipeline import Pipeline
from stmask_deploy.runtime.timing import FrameTimes
from stmask_deploy.runtime.ytvis import YtvisCollector
from stmask_deploy.tracking_config import TrackingConfig

SCHEMA = "stmask-tracking-grid/1"
ALPHAS = (1.0, 2.0, 4.0)  # relative to a mask IoU of weight 1
COSINES = (0.25, 0.4, 0.55, 0.7)  # that embeddings must exceed if masks do not overlap
NEW_OBJECT_SCORES = (1.4, 1.2, 0.95)
EXTENSIONS = ({}, {"embedding_momentum": 1.0}, {"max_cover": 0.7}, {"embedding_momentum": 1.0, "max_cover": 0.7})


@click.command(cls=Command, context_settings={"show_default": True})
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option("--bundle", "folder", type=click.Path(path_type=Path), help="[default: the demo model]")
@click.option("--tracking", "texts", multiple=True, metavar="TRACKER,SETTING=N,...",
              help="A row; may be repeated.  [default: a grid over those the network can be tracked with]")
@click.option("--skip", type=click.IntRange(min=0), default=0, help="Leave out the first videos.")
@click.option("--max-videos", type=click.IntRange(min=1), help="At most so many videos.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of the graphs.")
@report_options
def main(dataset: Path, folder: Path | None, texts: Sequence[str], skip: int, max_videos: int | None,
         threads: int | None, report_file: ReportFile) -> None:
    """Track DATASET, a folder with instances.json and JPEGImages in YouTube-VIS format, with every tracker setting."""
    report = new_report(SCHEMA)
    truth, frames = open_dataset(dataset, max_videos, skip)
    if not truth.videos:
        raise InputError(f"--skip {skip} leaves no video of {dataset}")
    folder = demo_bundle() if folder is None else folder
    description = read_description(folder)
    rows = tuple(map(TrackingConfig.parse, texts)) or grid(description.model)
    options = [as_options(row).resolve(description, is_live=False) for row in rows]
    bundle = open_bundle(folder, "onnxruntime", threads=threads)
    entries: list[list[dict[str, Any]]] = [[] for _ in rows]
    for video in truth.videos:
        for found, tracked in zip(entries, track(bundle, options, video, frames), strict=True):
            found += tracked
    scores = [score(row, truth, in_categories(found, truth)) for row, found in zip(rows, entries, strict=True)]
    report_file.write({**report, "checkpoint": description.checkpoint_name,
                       "checkpoint_sha256": description.checkpoint_sha256, "dataset": dataset.name, "skipped": skip,
                       "videos": len(truth.videos), "tracks": len(truth.tracks), "rows": scores})
    click.echo(table(scores))


def grid(model: ModelConfig) -> tuple[TrackingConfig, ...]:
    """The rows that a network supports."""
    own = "released" if model.temporal is not None else "frame"
    rows = tuple(TrackingConfig(own, new_object_score=score) for score in NEW_OBJECT_SCORES)
    if model.temporal is None:
        return rows
    return rows + tuple(TrackingConfig("paper", alpha=alpha, epsilon=alpha * cosine, **extension)
                        for extension in EXTENSIONS for alpha in ALPHAS for cosine in COSINES)


def as_options(tracking: TrackingConfig) -> RunOptions:
    """Run options for `tracking`; open settings take the tracker's defaults, not the bundle's."""
    return RunOptions(tracker=tracking.tracker, **tracking.settings)


def track(bundle: Bundle, options: Sequence[RunOptions], video: Video,
          frames: Path) -> list[list[dict[str, Any]]]:
    """The YouTube-VIS entries of one video, one list for each of `options`, which differ only in the tracker."""
    detector = Detector(bundle, options[0])  # a pipeline's own would make masks for its tracker only
    pipelines = [Pipeline(bundle, one) for one in options]
    collectors = [YtvisCollector(video.id) for _ in options]
    for index in range(video.length):
        detected = detector.detect(read_frame(frames, video, index), index, FrameTimes())
        for pipeline, collector in zip(pipelines, collectors, strict=True):
            collector.add(pipeline.track(detected, index, 0.0))
    return [collector.entries() for collector in collectors]


def score(row: TrackingConfig, truth: Annotations, entries: list[dict[str, Any]]) -> dict[str, Any]:
    """One row of the table."""
    result = evaluate(truth, entries)
    return {"tracking": dataclasses.asdict(row), "text": str(row), "ap": result.ap, "ap50": result.ap50,
            "ap75": result.ap75, "j": result.identities.j,
            "switches_per_ten_tracks": result.identities.switches_per_ten_tracks}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table, one line per row."""
    names = ("ap", "ap50", "ap75", "j", "switches_per_ten_tracks")
    cells = [("tracking", "AP", "AP50", "AP75", "J", "switches / 10 tracks")]
    cells += [(row["text"], *("-" if row[name] is None else f"{row[name]:.2f}" for name in names)) for row in rows]
    return format_table(cells, markdown=True)


if __name__ == "__main__":
    main()
