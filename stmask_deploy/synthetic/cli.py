"""`stmask-synth`: generates annotated clips."""
from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from stmask_deploy import __version__
from stmask_deploy.console import Command
from stmask_deploy.environment import available_cpus
from stmask_deploy.option_types import FrameSize, NamedPath
from stmask_deploy.teller import Teller
from stmask_deploy.wording import counted

_SPLITS = ("train", "val", "hard")
_DEMO = "demo"  # a single clip, no use for training or measuring, so only written on request
_EPILOG = """\b
Examples:
  stmask-synth data
  stmask-synth data --split val --split hard --workers 8
  stmask-synth small --clips 20 --frames 8 --size 192x320

\b
Exit codes: 0 done; 1 the run failed; 2 bad input or usage; 4 output could not be written; 130 interrupted.
"""


@click.command(cls=Command, epilog=_EPILOG, context_settings={"max_content_width": 110, "show_default": True})
@click.argument("output", type=NamedPath(), metavar="OUT_DIR")
@click.option("--split", "names", type=click.Choice([*_SPLITS, _DEMO]), multiple=True, default=_SPLITS,
              help="Split to generate; may be repeated. demo is the clip that ships with the package.")
@click.option("--clips", "num_clips", type=click.IntRange(min=1), metavar="N",
              help="Number of clips per split.  [default: 480 for train, 30 for val and hard, 1 for demo]")
@click.option("--frames", "num_frames", type=click.IntRange(min=1), metavar="N",
              help="Number of frames per clip.  [default: 12 for train, 30 for val and hard, 96 for demo]")
@click.option("--size", type=FrameSize(), default="360x640", help="Frame size in pixels.")
@click.option("--video", "as_video", is_flag=True, help="Write OUT_DIR/SPLIT/videos/CLIP.mp4 instead of pictures.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N",
              help="Number of processes; does not affect the result.  [default: one per CPU]")
@click.option("--overwrite", is_flag=True, help="Replace splits that were generated earlier.")
@click.version_option(__version__, prog_name="stmask-synth")
def main(output: Path, names: tuple[str, ...], num_clips: int | None, num_frames: int | None, size: tuple[int, int],
         as_video: bool, workers: int | None, overwrite: bool) -> None:
    """Generate annotated clips of moving shapes in YouTube-VIS 2019 format.

    Every split gets a folder in OUT_DIR with JPEGImages/<clip>/<frame>.jpg and instances.json. train is varied, val
    moderate; hard has occlusion, look-alikes, motion blur and poor light.
    """
    from .split_folder import SplitFolder
    from .splits import SPLITS
    from .writer import write_split

    names, tell = tuple(dict.fromkeys(names)), Teller()
    for name in names:  # check all of them before writing the first
        SplitFolder(output / name, SPLITS[name], as_video).check(overwrite)
    for name in names:
        split, start = SPLITS[name], time.perf_counter()
        total = num_clips or split.num_clips
        with _Progress(name, total) as progress:
            path = write_split(split, output / name, num_clips=num_clips, num_frames=num_frames, size=size,
                               as_video=as_video, workers=workers or available_cpus(), overwrite=overwrite,
                               advance=progress.advance)
        frames, seconds = total * (num_frames or split.num_frames), time.perf_counter() - start
        tell(click.echo, f"{path}: {counted(total, 'clip')}, {counted(frames, 'frame')} in {seconds:.1f} s "
                         f"({frames / seconds:.0f} frames/s)")
    tell.check()


class _Progress:
    """A progress line on a terminal; nothing elsewhere."""

    def __init__(self, name: str, total: int) -> None:
        self._name, self._total, self._done = name, total, 0
        self._is_shown = sys.stderr is not None and sys.stderr.isatty()

    def advance(self) -> None:
        self._done += 1
        if self._is_shown:
            click.echo(f"\r{self._name}: clip {self._done}/{self._total}", nl=False, err=True)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._is_shown and self._done:
            click.echo(err=True)
