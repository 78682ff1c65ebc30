"""How cost grows with objects per frame, frame size, length of a video, number of streams, and threads.

    python benchmarks/scaling.py --bundle model_stmask --backend openvino --json scaling.json --plots docs/images

Graphs really run; where the number of objects matters, detections are replaced (`injected.py`).
"""
from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click
import numpy as np
from injected import Objects, inject
from report_file import ReportFile, new_report, report_options

from stmask_deploy.bench.bundle_run import FrameClock
from stmask_deploy.bench.figures import CODECS, GRAPHS
from stmask_deploy.bench.tables import format_table
from stmask_deploy.console import Command
from stmask_deploy.environment import available_cpus
from stmask_deploy.errors import InputError
from stmask_deploy.pretrained import demo_bundle, demo_clip
from stmask_deploy.runtime.loading import Bundle, open_bundle
from stmask_deploy.runtime.model import Model
from stmask_deploy.runtime.options import RunOptions
from stmask_deploy.runtime.run import run_video
from stmask_deploy.runtime.sources import open_source
from stmask_deploy.runtime.timing import FrameTimes
from stmask_deploy.runtime.video_writer import VideoWriter
from stmask_deploy.synthetic.clips import render

SCHEMA = "stmask-scaling/1"
OBJECTS = (1, 2, 5, 10, 20, 50, 100)
SIZES = ((640, 360), (1280, 720), (1920, 1080), (2560, 1440), (3840, 2160))
STREAMS = (1, 2, 4, 8)
# Frames, frames, objects, frames per figure. No more objects than places: others would be taken for known ones.
LENGTH, CHANGE_EVERY, AT_ONCE, WINDOW = 800, 8, 5, 80
STATM = Path("/proc/self/statm")
WARMUP = 3  # frames before those measured


class MemoryClock(FrameClock):
    """Also records how much memory the process has after every frame: MB resident, None where it is not told."""

    def __init__(self) -> None:
        super().__init__()
        self.memory: list[float | None] = []

    def end_frame(self, times: FrameTimes) -> None:
        super().end_frame(times)
        self.memory.append(resident_mb())

    def restart(self) -> None:
        super().restart()
        self.memory.clear()


def resident_mb() -> float | None:
    """Memory of this process; None where the system has no such file."""
    if not STATM.exists():
        return None
    return round(int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


@dataclass(frozen=True)
class Setup:
    """Common inputs of the experiments."""

    bundle: Bundle
    open: Callable[[int], Bundle]  # opens the same bundle with a number of CPU threads
    frames: int  # per turn
    rounds: int
    folder: Path

    def run(self, bundle: Bundle, video: Path, frames: int, mode: str = "latency", **options: Any) -> MemoryClock:
        """Run a bundle on a video and write its results; returns the clock with its times."""
        clock = MemoryClock()
        # Injected objects have random embeddings, so use the tracker that depends least on them.
        model = Model(bundle, RunOptions(tracker="released", **options), clock)
        with open_source(video) as source:
            clock.restart()
            summary = run_video(model, source, self.folder / "results", draw=False, max_frames=frames, overwrite=True,
                                mode=mode)
        if summary.frames < frames:
            raise InputError(f"{video} has only {summary.frames} of the {frames} frames that are needed; give smaller "
                             "--frames")
        return clock


def by_objects(setup: Setup) -> list[dict[str, Any]]:
    """Milliseconds of graphs and host by the number of objects per frame."""
    clocks: dict[int, list[dict[str, float]]] = {count: [] for count in OBJECTS}
    for _ in range(setup.rounds):
        for count, frames in clocks.items():
            clock = setup.run(inject(setup.bundle, Objects(count)), demo_clip(), WARMUP + setup.frames)
            frames += [{**stages, "frame": seconds} for stages, seconds
                       in zip(clock.frames, clock.periods(), strict=True)][WARMUP:]
    return [{"objects": count, **_stages(frames)} for count, frames in clocks.items()]


def by_size(setup: Setup) -> list[dict[str, Any]]:
    """Cost by frame size: frames per second of the overlapped run, and milliseconds of the stages one at a time."""
    clips = {}
    for size in SIZES:
        clips[size] = setup.folder / f"{size[0]}.mp4"
        with VideoWriter(clips[size]) as writer:
            for image in render("val", 0, WARMUP + setup.frames, (size[1], size[0])).pictures():
                writer.write(image)
    stages: dict[tuple[int, int], list[dict[str, float]]] = {size: [] for size in SIZES}
    runs: dict[tuple[int, int], list[float]] = {size: [] for size in SIZES}
    for _ in range(setup.rounds):
        for size, clip in clips.items():
            clock = setup.run(setup.bundle, clip, WARMUP + setup.frames)
            stages[size] += [{**one, "frame": seconds} for one, seconds
                             in zip(clock.frames, clock.periods(), strict=True)][WARMUP:]
            runs[size] += setup.run(setup.bundle, clip, WARMUP + setup.frames, "auto").periods()[WARMUP:]
    return [{"width": size[0], "height": size[1], "fps": round(1 / float(np.mean(runs[size])), 3),
             **_stages(stages[size])} for size in SIZES]


def by_length(setup: Setup) -> list[dict[str, Any]]:
    """Milliseconds per frame, and memory, along a video whose objects keep changing, in bounded and in exact memory.

    Bounded comes first: what exact memory has taken may stay with the process.
    """
    clip = setup.folder / "long.mp4"
    with VideoWriter(clip) as writer:
        for image in render("val", 0, LENGTH, (180, 320)).pictures():
            writer.write(image)
    found = []
    for memory in ("bounded", "exact"):
        objects = Objects(AT_ONCE, CHANGE_EVERY)
        clock = setup.run(inject(setup.bundle, objects), clip, LENGTH, memory=memory)
        periods = clock.periods()
        found += [{"memory": memory, "frame": end, "objects_seen": AT_ONCE * -(-end // CHANGE_EVERY),
                   "frame_ms": _milliseconds(periods[end - WINDOW:end]), "resident_mb": clock.memory[end - 1]}
                  for end in range(WINDOW, LENGTH + 1, WINDOW)]
    return found


def by_streams(setup: Setup) -> list[dict[str, Any]]:
    """Frames per second of several videos at once, each in its own thread, on the same graphs."""
    model = Model(setup.bundle, RunOptions())

    def one_stream(_: int) -> int:
        forked = model.fork()
        with open_source(demo_clip()) as source:
            return sum(1 for _ in forked.track_frames(source, max_frames=setup.frames, mode="latency"))

    seconds: dict[int, list[float]] = {count: [] for count in STREAMS}
    one_stream(0)
    for _ in range(setup.rounds):
        for count, taken in seconds.items():
            start = time.perf_counter()
            with ThreadPoolExecutor(count) as pool:
                done = sum(pool.map(one_stream, range(count)))
            taken.append((time.perf_counter() - start) / done)
    return [{"streams": count, "fps": round(1 / float(np.median(taken)), 3)} for count, taken in seconds.items()]


def by_threads(setup: Setup) -> list[dict[str, Any]]:
    """Frames per second of one video, overlapped, by CPU threads of the graphs."""
    bundles = {count: setup.open(count) for count in thread_counts(available_cpus())}
    runs: dict[int, list[float]] = {count: [] for count in bundles}
    for _ in range(setup.rounds):
        for count, bundle in bundles.items():
            runs[count] += setup.run(bundle, demo_clip(), WARMUP + setup.frames, "auto").periods()[WARMUP:]
    return [{"threads": count, "fps": round(1 / float(np.mean(periods)), 3)} for count, periods in runs.items()]


def thread_counts(cores: int) -> list[int]:
    """Powers of two below the number of cores, and the number of cores itself."""
    return [*(1 << i for i in range((cores - 1).bit_length())), cores]


EXPERIMENTS: dict[str, Callable[[Setup], list[dict[str, Any]]]] = {
    "objects": by_objects, "size": by_size, "length": by_length, "streams": by_streams,
    "threads": by_threads}


def _stages(frames: Sequence[dict[str, float]]) -> dict[str, float]:
    """Median milliseconds of each graph and codec, of the host's other work, and of the whole frame."""
    found = {f"{name}_ms": _milliseconds([one.get(name, 0.0) for one in frames]) for name in (*GRAPHS, *CODECS)}
    host = [one["frame"] - sum(one.get(name, 0.0) for name in (*GRAPHS, *CODECS)) for one in frames]
    return {**found, "host_ms": _milliseconds(host), "frame_ms": _milliseconds([one["frame"] for one in frames])}


def _milliseconds(seconds: Sequence[float]) -> float:
    return round(1000 * float(np.median(seconds)), 3)


@click.command(cls=Command, context_settings={"show_default": True})
@click.option("--bundle", type=click.Path(path_type=Path), help="[default: the demo model]")
@click.option("--backend", type=click.Choice(["onnxruntime", "openvino"]), default="onnxruntime")
@click.option("--device", default="auto")
@click.option("--precision", default="f32")
@click.option("--threads", type=click.IntRange(min=1), default=2, help="CPU threads of the graphs.")
@click.option("--frames", type=click.IntRange(min=1), default=12, help="Of each measurement in a round.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, help="Turns of each measurement.")
@click.option("--only", multiple=True, type=click.Choice(list(EXPERIMENTS)), help="[default: all]")
@report_options
@click.option("--plots", type=click.Path(path_type=Path, file_okay=False), help="Folder for plots, as SVG.")
def main(bundle: Path | None, backend: str, device: str, precision: str, threads: int, frames: int, rounds: int,
         only: Sequence[str], report_file: ReportFile, plots: Path | None) -> None:
    """Measure how cost grows with each factor."""
    if plots is not None:
        from plots import check_plots

        check_plots(plots)
    open_with = partial(_open, bundle or demo_bundle(), backend, device, precision)
    opened = open_with(threads)
    if opened.temporal is None and (not only or {"objects", "length"} & set(only)):
        raise InputError("objects and length are about the temporal graph, which this bundle does not have; measure "
                         "--only size --only streams --only threads")
    report: dict[str, Any] = {
        **new_report(SCHEMA), "device": opened.frame.device, "variant": opened.description.model.variant,
        "checkpoint": opened.description.checkpoint_name, "frames": frames, "rounds": rounds, "experiments": {}}
    with tempfile.TemporaryDirectory() as folder:
        setup = Setup(opened, open_with, frames, rounds, Path(folder))
        for name in only or EXPERIMENTS:
            click.echo(f"measuring by {name}", err=True)
            report["experiments"][name] = EXPERIMENTS[name](setup)
            report_file.write(report)
            click.echo(f"\n### {name}\n\n{_table(report['experiments'][name])}")
    if plots is not None:
        from plots import write_plots

        for path in write_plots(report["experiments"], plots, opened.frame.device):
            click.echo(str(path))


def _open(folder: Path, backend: str, device: str, precision: str, threads: int) -> Bundle:
    return open_bundle(folder, backend, device=device, precision=precision, threads=threads, is_whole=False)


def _table(points: Sequence[dict[str, Any]]) -> str:
    names = list(points[0])
    return format_table([[name.replace("_", " ") for name in names],
                         *([str(point[name]) for name in names] for point in points)], markdown=True)


if __name__ == "__main__":
    main()
