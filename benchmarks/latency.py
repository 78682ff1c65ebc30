"""Where the time of a frame goes, stage by stage, on every backend and against PyTorch in the same run."""
from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click
from machine import describe_machine, library_versions
from report import add_speedups, latency_table, summarise
from row_process import RowProcess
from rows import Job, Row, Sample

from stmask_deploy.bundle import read_description
from stmask_deploy.console import Command
from stmask_deploy.errors import InputError, OutputError
from stmask_deploy.runtime.sources import open_source
from stmask_deploy.runtime.video_writer import VideoWriter
from stmask_deploy.scenes import render_clip

SCHEMA = "stmask-latency/1"
CLIP_HW = (720, 1280)
CLIP_OBJECTS = 10
DEFAULT_ROWS = ("torch:f32", "onnxruntime:f32", "openvino:f32", "openvino:bf16")


def parse_rows(_ctx: click.Context, _parameter: click.Parameter, value: str) -> list[Row]:
    """`torch:f32,openvino:bf16` -> rows."""
    try:
        return [Row.parse(text) for text in value.split(",")]
    except InputError as error:
        raise click.BadParameter(str(error)) from error


@click.command(cls=Command)
@click.option("--bundle", "bundles", multiple=True, type=click.Path(path_type=Path), metavar="DIR",
              help="Exported bundle, with IR for the openvino rows; may be repeated.")
@click.option("--checkpoint", "checkpoints", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
              help="What PyTorch runs; may be repeated. One that no bundle was exported from is exported first.")
@click.option("--video", type=click.Path(path_type=Path), help="[default: a generated 720p clip]")
@click.option("--rows", callback=parse_rows, default=",".join(DEFAULT_ROWS), show_default=True, metavar="ROW,ROW",
              help="What is compared, BACKEND:PRECISION.")
@click.option("--threads", type=click.IntRange(min=1), default=2, show_default=True, help="CPU threads of the graphs.")
@click.option("--conf", type=click.FloatRange(0, 1), default=0.05, show_default=True,
              help="Score threshold; it decides how many objects there are.")
@click.option("--warmup", type=click.IntRange(min=1), default=5, show_default=True, help="Frames before every round.")
@click.option("--frames", type=click.IntRange(min=1), default=30, show_default=True, help="Timed frames, all rounds.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True,
              help="Turns that the rows take, since a shared machine drifts.")
@click.option("--graphs-only", is_flag=True, help="The frame graph and the temporal graph (10 objects), nothing else.")
@click.option("--json", "json_path", type=click.Path(path_type=Path, dir_okay=False), metavar="OUT",
              help="Write the figures there.")
def main(bundles: Sequence[Path], checkpoints: Sequence[Path], video: Path | None, rows: list[Row], threads: int,
         conf: float, warmup: int, frames: int, rounds: int, graphs_only: bool, json_path: Path | None) -> None:
    """Measure every stage of a frame, for bundles on every backend, PyTorch beside them in the same run.

    Each row has a process of its own, and the rows take turns.
    """
    if not bundles and not checkpoints:
        raise click.UsageError("give at least one --bundle or --checkpoint")
    report: dict[str, Any] = {
        "schema": SCHEMA, "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": describe_machine(), "versions": library_versions(), "threads": threads, "warmup": warmup,
        "frames": frames, "rounds": rounds, "conf": conf, "graphs_only": graphs_only}
    with tempfile.TemporaryDirectory() as folder:
        pairs = pair(bundles, checkpoints, Path(folder))
        # The frame graph's first frame has no predecessor for the temporal graph.
        length = warmup * rounds + frames + (1 if graphs_only else 0)
        clip = video or write_clip(Path(folder) / "generated.mp4", length)
        report["video"] = describe_video(clip, length)
        report["bundles"] = [
            measure_bundle([Job(row, bundle, checkpoint, clip, threads, conf, graphs_only) for row in rows],
                           warmup, split(frames, rounds))
            for bundle, checkpoint in pairs]
    click.echo(latency_table(report))
    if json_path is not None:
        write_json(json_path, report)


def pair(bundles: Sequence[Path], checkpoints: Sequence[Path], folder: Path) -> list[tuple[Path, Path | None]]:
    """Every bundle with the checkpoint it was exported from, if that is given.

    Args:
        bundles: exported bundles.
        checkpoints: those that no bundle was exported from are exported into `folder`, IR included.

    Raises:
        InputError: one of them is not a bundle or a checkpoint.
    """
    origins = {bundle: read_description(bundle).checkpoint_sha256 for bundle in bundles}
    digests = {_digest(path): path for path in checkpoints}
    exported = [(_export(path, folder / digest), path) for digest, path in digests.items()
                if digest not in origins.values()]
    return [(bundle, digests.get(digest)) for bundle, digest in origins.items()] + exported


def _digest(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error


def _export(checkpoint: Path, folder: Path) -> Path:
    from stmask_deploy.export.exporter import ExportOptions, export_checkpoint
    from stmask_deploy.models.checkpoint import load_checkpoint

    click.echo(f"exporting {checkpoint.name}", err=True)
    export_checkpoint(load_checkpoint(checkpoint), folder, ExportOptions(openvino_weights="f32"))
    return folder


def write_clip(path: Path, num_frames: int) -> Path:
    """Write the generated clip."""
    with VideoWriter(path) as writer:
        for image in render_clip(num_frames, CLIP_HW, num_objects=CLIP_OBJECTS):
            writer.write(image)
    return path


def describe_video(path: Path, num_frames: int) -> dict[str, Any]:
    """Name and size of a video.

    Raises:
        InputError: it cannot be read, or says that it has fewer than `num_frames` frames.
    """
    with open_source(path) as source:
        if source.num_frames is not None and source.num_frames < num_frames:
            raise InputError(f"{path} has {source.num_frames} frames and {num_frames} are needed; give a longer video, "
                             "or smaller --frames, --warmup or --rounds")
        return {"name": source.name, "width": source.width, "height": source.height}


def split(frames: int, rounds: int) -> list[int]:
    """Frames of each round, as even as can be; no round is empty."""
    return [part for part in (frames // rounds + (index < frames % rounds) for index in range(rounds)) if part]


def measure_bundle(jobs: Sequence[Job], warmup: int, counts: Sequence[int]) -> dict[str, Any]:
    """Every row of one bundle, in turns: in each round `warmup` frames that are not counted, then the round's."""
    description = read_description(jobs[0].bundle)
    with ExitStack() as stack:
        processes = {job.row: RowProcess(job) for job in jobs}
        for process in processes.values():
            stack.callback(process.close)
        samples: dict[Row, list[Sample]] = {row: [] for row in processes}
        for count in counts:
            for row, process in processes.items():
                process.measure(warmup)
                samples[row] += process.measure(count)
        rows = list(_figures(processes, samples))
    add_speedups(rows)
    return {"variant": description.model.variant, "export_id": description.export_id, "dcn": description.dcn,
            "checkpoint": description.checkpoint_name, "checkpoint_sha256": description.checkpoint_sha256,
            "rows": rows}


def _figures(processes: dict[Row, RowProcess], samples: dict[Row, list[Sample]]) -> Iterator[dict[str, Any]]:
    for row, process in processes.items():
        if process.reason:
            yield {"row": str(row), "not_available": process.reason}
        else:
            yield {"row": str(row), "device": process.device, **summarise(samples[row])}


def write_json(path: Path, report: dict[str, Any]) -> None:
    """Write the figures.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error.strerror or error})") from error


if __name__ == "__main__":
    main()
