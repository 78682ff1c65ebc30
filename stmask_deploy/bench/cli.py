"""`stmask-bench`: how fast bundles run on this machine."""
from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stmask_deploy import __version__
from stmask_deploy.console import Command
from stmask_deploy.ending_signals import ended_by_signals
from stmask_deploy.errors import InputError, OutputError
from stmask_deploy.option_types import NamedPath
from stmask_deploy.report_file import ReportFile
from stmask_deploy.teller import Teller

if TYPE_CHECKING:
    from .report import Report
    from .row import Job

DEFAULT_ROWS = ("onnxruntime:f32", "openvino:f32", "openvino:bf16")
INT8_ROWS = ("onnxruntime:int8", "openvino:int8")  # by default too, of a bundle with such graphs

_EPILOG = """\b
Examples:
  stmask-bench
  stmask-bench model_stmask clip.mp4 --json today.json
  stmask-bench model_stmask clip.mp4 --compare yesterday.json
  stmask-bench model_stmask clip.mp4 --compare other_stmask
  stmask-bench model_stmask --row openvino:bf16 --row openvino:bf16,mode=latency,detect_every=2

\b
Exit codes: 0 done, also where some rows are not available; 1 no row can be measured; 2 bad input or usage; 4 output
could not be written; 130 interrupted.
"""


@click.command(cls=Command, epilog=_EPILOG, context_settings={"max_content_width": 110, "show_default": True})
@click.argument("bundle", required=False, type=NamedPath())
@click.argument("video", required=False, type=NamedPath())
@click.option("--row", "row_texts", multiple=True, metavar="ROW",
              help="BACKEND:PRECISION[:DEVICE][,OPTION=VALUE...]; may be given several times. Options are mode and "
                   "those of the Python API, e.g. score_threshold=0.3.  "
                   f"[default: {', '.join(DEFAULT_ROWS)}, and int8 where the bundle has it]")
@click.option("--threads", type=click.IntRange(min=1),
              help="CPU threads of the graphs.  [default: the backend's choice]")
@click.option("--cache", type=NamedPath(), metavar="DIR",
              help="Keep what openvino and tensorrt compile in DIR, as stmask-run does, for faster starts the next "
                   "time.  [default: nothing is kept]")
@click.option("--warmup", type=click.IntRange(min=1), default=5, help="Frames before every turn of a row.")
@click.option("--frames", type=click.IntRange(min=1), default=30, help="Frames of a turn, from the start of the video.")
@click.option("--rounds", type=click.IntRange(min=1), default=5,
              help="Turns of each row. The rows take turns, since machines drift.")
@click.option("--draw", is_flag=True, help="Write the annotated video too.")
@click.option("--compare", type=NamedPath(), metavar="OLD",
              help="Report what is faster or slower than in OLD: the JSON of an earlier benchmark, or another bundle, "
                   "whose rows then take turns with this one's.")
@click.option("--json", "json_path", type=NamedPath(), metavar="FILE",
              help="Write figures and samples there.")
@click.option("--overwrite", is_flag=True, help="Replace the JSON file if it exists.")
@click.option("--markdown", is_flag=True, help="Print the tables as Markdown.")
@click.version_option(__version__, prog_name="stmask-bench")
def main(bundle: Path | None, video: Path | None, row_texts: Sequence[str], threads: int | None,
         cache: Path | None, warmup: int, frames: int, rounds: int, draw: bool, compare: Path | None,
         json_path: Path | None, overwrite: bool, markdown: bool) -> None:
    """Measure BUNDLE on VIDEO, one row per combination of backend, precision, device and options.

    Without arguments, measures the demo model on its clip. Every row runs in its own process. The tables show frames
    per second end to end (with decoding and results.jsonl) and of the graphs alone; the time of every stage; memory
    and start-up; arithmetic, and its share of what plain convolutions reach on this machine; and agreement with f32.
    """
    from stmask_deploy.pretrained import demo_bundle, demo_clip

    from .row import Job, Row
    from .tables import report_text

    report_file, tell = ReportFile(json_path, overwrite, _inputs(bundle, video, compare)), Teller()
    # Absolute paths, because every row's process receives them.
    folders, clip = [(bundle or demo_bundle()).absolute()], (video or demo_clip()).absolute()
    kept = None if cache is None else cache.absolute()
    rows = list({str(row): row for row in map(Row.parse, row_texts or default_rows(folders[0]))}.values())
    with ended_by_signals(), _scratch_folder() as scratch:
        if compare is not None and os.path.isdir(compare):
            if os.path.exists(folders[0]) and os.path.samefile(compare, folders[0]):
                raise InputError(f"--compare {compare} is the bundle that is measured; give another one")
            folders.append(compare.absolute())
        jobs = [Job(row, folder, clip, Path(scratch) / f"{i}-{j}", threads, warmup, frames, draw, kept)
                for i, row in enumerate(rows) for j, folder in enumerate(folders)]
        report, compared = _measure(jobs, rounds, compare, markdown, lambda line: tell(click.echo, line, err=True))
    try:
        report_file.write(report)
    finally:  # the figures are not lost if the disk is full
        click.echo(report_text(report, markdown=markdown))
        if compared:
            click.echo(f"\n{compared}")
    tell.check()


def default_rows(bundle: Path) -> Sequence[str]:
    """What is measured of the bundle in a folder if no row is given."""
    from stmask_deploy.bundle import read_description

    return (*DEFAULT_ROWS, *INT8_ROWS) if "int8" in read_description(bundle).precisions else DEFAULT_ROWS


@contextmanager
def _scratch_folder() -> Iterator[str]:
    try:
        folder = tempfile.TemporaryDirectory()
    except OSError as error:
        raise OutputError(f"no temporary folder can be made ({error.strerror}); set TMPDIR to one that can be written"
                          ) from error
    with folder as name:
        yield name


def _inputs(*paths: Path | None) -> list[Path]:
    """The files at these paths, and those in folders; `compare` may be a file or another bundle."""
    given = [path for path in paths if path is not None]
    return given + [file for path in given if os.path.isdir(path) for file in path.rglob("*")]


def _measure(jobs: Sequence[Job], rounds: int, compare: Path | None, markdown: bool, say: Callable[[str], None]
             ) -> tuple[Report, str]:
    """The report, and the text of the comparison (empty if there is none)."""
    from .bundle_run import describe_video
    from .comparison import check_comparable, compare_bundles, compare_reports
    from .report import make_report, read_report
    from .tables import comparison_text

    old = read_report(compare) if compare is not None and not os.path.isdir(compare) else None
    first = jobs[0]
    if old is not None:
        settings = {"threads": first.threads, "frames": first.frames, "draw": first.draw}
        check_comparable(old, settings, describe_video(first), str(compare))
    report = make_report(jobs, rounds, say)
    if compare is None:
        return report, ""
    comparison = compare_reports(report, old) if old is not None else compare_bundles(report)
    return report, comparison_text(comparison, markdown=markdown)
