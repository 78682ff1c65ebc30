"""Cost of the host's part of a run, and the throughput it would allow with graphs of given speeds.

    python benchmarks/host_work.py BUNDLE VIDEO --ms 3.7,0.8,0.9 --ms 0,0,0 --json host.json

The graphs are run once, on the CPU; their outputs are then replayed after the given times, during which a thread
sleeps. Everything else is real: decoding, NMS, masks, tracking, writing. This emulates an absent GPU. It omits the CPU
time of driving one, and adds the time to look up and copy the outputs. Whether a GPU runs two graphs concurrently
depends on the graphs, so there are rows for both extremes.
"""
from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from held_source import hold
from replayed import ROLES, Record
from report_file import ReportFile, new_report, report_options

from stmask_deploy.bench.bundle_run import FrameClock
from stmask_deploy.bench.tables import format_table
from stmask_deploy.bundle import read_description
from stmask_deploy.console import Command
from stmask_deploy.errors import InputError
from stmask_deploy.pretrained import demo_bundle, demo_clip
from stmask_deploy.runtime.encoder_process import EncoderProcess
from stmask_deploy.runtime.frame_source import FrameSource
from stmask_deploy.runtime.loading import open_bundle
from stmask_deploy.runtime.model import Model
from stmask_deploy.runtime.options import RunOptions
from stmask_deploy.runtime.run import run_video
from stmask_deploy.runtime.sources import open_source
from stmask_deploy.runtime.timing import STAGES

SCHEMA = "stmask-host-work/1"
Times = tuple[float, float, float]  # milliseconds of the graphs, in the order of ROLES


@dataclass(frozen=True)
class Row:
    """One way to run."""

    name: str
    mode: str
    is_helped: bool = False  # a separate process encodes results
    one_at_a_time: bool = False  # graphs do not run concurrently


ROWS = (
    Row("latency", "latency"),
    Row("throughput, encoded in place", "throughput"),
    Row("throughput", "throughput", is_helped=True),
    Row("throughput, one graph at a time", "throughput", is_helped=True, one_at_a_time=True),
)


@click.command(cls=Command, context_settings={"show_default": True})
@click.argument("bundle", required=False, type=click.Path(path_type=Path))
@click.argument("video", required=False, type=click.Path(path_type=Path))
@click.option("--ms", "times", multiple=True, default=["0,0,0"], callback=lambda _context, _option, texts: parse(texts),
              help="Of the frame, the instance and the temporal graph; may be repeated.")
@click.option("--frames", type=click.IntRange(min=2), default=60, help="Of the video; some 5 MB of memory each.")
@click.option("--warmup", type=click.IntRange(min=1), default=10, help="Warm-up frames among these.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, help="Turns of every row.")
@click.option("--decoded", is_flag=True, help="Frames are in memory, as if other cores had decoded them.")
@click.option("--memory", type=click.Choice(["exact", "bounded"]), default="bounded")
@report_options
def main(bundle: Path | None, video: Path | None, times: Sequence[Times], frames: int, warmup: int, rounds: int,
         decoded: bool, memory: str, report_file: ReportFile) -> None:
    """Measure BUNDLE on VIDEO (by default the demo model on its clip)."""
    if warmup >= frames:
        raise InputError(f"--warmup {warmup} leaves none of --frames {frames}; give more frames")
    video = video or demo_clip()
    options = RunOptions(memory=memory)
    report = new_report(SCHEMA)
    held = hold(video, frames)
    with EncoderProcess() as helper, tempfile.TemporaryDirectory() as folder:
        record = Record(open_bundle(bundle or demo_bundle(), device="cpu"))
        clock = FrameClock()
        run(Model(record.recording(), options, clock), held, frames, "latency", EncoderProcess(), Path(folder), clock)
        turns: dict[tuple[Times, Row], list[dict[str, Any]]] = {(ms, row): [] for ms in times for row in ROWS}
        models = {(ms, alone): Model(record.replaying(seconds_of(ms), alone), options, clock)
                  for ms in times for alone in (False, True)}
        for _ in range(rounds):
            for (ms, row), found in turns.items():
                with held.again() if decoded else open_source(video) as source:
                    found.append(run(models[ms, row.one_at_a_time], source, frames, row.mode,
                                     helper if row.is_helped else EncoderProcess(), Path(folder), clock, warmup))
    rows = [{"ms": dict(zip(ROLES, ms, strict=True)), "row": row.name, **summary(found)}
            for (ms, row), found in turns.items()]
    report_file.write({**report, "variant": read_description(bundle or demo_bundle()).model.variant,
                       "video": video.name, "frames": frames, "warmup": warmup, "rounds": rounds, "memory": memory,
                       "is_decoded": decoded, "rows": rows})
    click.echo(table(rows))


def parse(texts: Sequence[str]) -> list[Times]:
    """Parse milliseconds of the three graphs, separated by commas.

    Raises:
        BadParameter: there are not three numbers, or one is negative or not finite.
    """
    found = []
    for text in texts:
        try:
            frame, instance, temporal = map(float, text.split(","))
        except ValueError:
            raise click.BadParameter(f"{text!r}: give three numbers, as in 3.7,0.8,0.9") from None
        if not all(0 <= one < float("inf") for one in (frame, instance, temporal)):
            raise click.BadParameter(f"{text!r}: milliseconds must be finite and not negative")
        found.append((frame, instance, temporal))
    return list(dict.fromkeys(found))


def seconds_of(ms: Times) -> dict[str, float]:
    """Seconds by role."""
    return {role: one / 1000 for role, one in zip(ROLES, ms, strict=True)}


def run(model: Model, source: FrameSource, frames: int, mode: str, helper: EncoderProcess, folder: Path,
        clock: FrameClock, warmup: int = 0) -> dict[str, Any]:
    """One run: seconds per frame and stage after warm-up, and this process's CPU seconds per frame, warm-up included.

    Args:
        helper: encodes results in mode throughput; if it was not started, this process does.
    """
    clock.restart()
    cores_s = time.process_time()
    done = run_video(model, source, folder / "results", draw=False, max_frames=frames, overwrite=True, mode=mode,
                     encoder_process=helper)
    cores_s = time.process_time() - cores_s
    if done.frames < frames:
        raise InputError(f"{source.name} has only {done.frames} of the {frames} frames that are needed; give fewer "
                         "--frames")
    return {"seconds": clock.periods()[warmup:], "cores_s": cores_s / frames, "stages": clock.frames[warmup:]}


def summary(turns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Frames per second of each turn, and medians over all turns, in ms, of CPU time and stages per frame.

    CPU time excludes the process that encodes results.
    """
    stages = [stages for turn in turns for stages in turn["stages"]]
    return {"fps": [round(len(turn["seconds"]) / sum(turn["seconds"]), 2) for turn in turns],
            "cores_ms": round(1000 * float(np.median([turn["cores_s"] for turn in turns])), 3),
            "stages_ms": {stage: round(1000 * float(np.median([one[stage] for one in stages if stage in one])), 3)
                          for stage in STAGES if any(stage in one for one in stages)}}


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A Markdown table, one line per row; stage times of mode throughput include waiting and are in the JSON only."""
    stages = list(rows[0]["stages_ms"])
    cells = [("graphs' ms", "row", "FPS", "slowest", "fastest turn", "CPU ms per frame",
              *(f"{one} ms" for one in stages))]
    for row in rows:
        own = (f"{row['stages_ms'][stage]:.2f}" if row["row"] == "latency" else "-" for stage in stages)
        cells.append((" + ".join(f"{one:g}" for one in row["ms"].values()), row["row"], f"{np.median(row['fps']):.1f}",
                      f"{min(row['fps']):.1f}", f"{max(row['fps']):.1f}", f"{row['cores_ms']:.2f}", *own))
    return format_table(cells, markdown=True)


if __name__ == "__main__":
    main()
