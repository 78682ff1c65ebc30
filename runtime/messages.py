"""The messages that `stmask-run` prints."""
from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import click

from stmask_deploy.console import is_verbose
from stmask_deploy.errors import StmaskError
from stmask_deploy.wording import counted, on_one_line

if TYPE_CHECKING:
    from .model import Model
    from .run import RunSummary


@contextmanager
def told_warnings() -> Iterator[None]:
    """Print the package's warnings to standard error, each on a line of its own."""
    logger, handler = logging.getLogger("stmask_deploy"), _Echo(logging.WARNING)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Echo(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        # On a terminal the progress line ends where the cursor is.
        start = "\n" if sys.stderr is not None and sys.stderr.isatty() else ""
        with suppress(OSError):  # nobody reads the messages any more
            click.echo(f"{start}warning: {on_one_line(record.getMessage())}", err=True)


def tell_setup(model: Model, is_live: bool) -> None:
    """Print to standard error which network runs and where, then call `tell_limits`."""
    options = model.options
    name = on_one_line(model.description.checkpoint_name)
    click.echo(f"{model.description.model.variant} ({name}) on {model.device}; tracking {options.tracking}, "
               f"nms {options.nms}", err=True)
    tell_limits(model, is_live)


def tell_limits(model: Model, is_live: bool, of: str = "") -> None:
    """Print to standard error the limits of bounded memory and live sources, each line prefixed with `of`."""
    if model.options.memory_note:
        click.echo(f"{of}{model.options.memory_note}", err=True)
    if is_live:
        click.echo(f"{of}no results.json for a live source, which never ends; results.jsonl holds everything",
                   err=True)


def tell_summary(summary: RunSummary, of: str = "") -> None:
    """Print the summary and the files to standard output; `of` prefixes the summary."""
    of = on_one_line(click.format_filename(of))
    skipped = f", {summary.damage.skipped_frames} skipped" if summary.damage.skipped_frames else ""
    click.echo(f"{of}{counted(summary.frames, 'frame')}{skipped} in {summary.seconds:.1f} s "
               f"({summary.fps:.2f} frames/s), {counted(summary.identities, 'identity', 'identities')}")
    for path in summary.files:
        click.echo(click.format_filename(path))


def tell_problems(summary: RunSummary, of: str = "") -> None:
    """Print to standard error what was wrong with a run; `of` prefixes the messages."""
    of = on_one_line(click.format_filename(of))
    if summary.lost_candidates:
        click.echo(f"warning: {of}{counted(summary.lost_candidates, 'candidate')} did not fit into the frame graph's "
                   "rows and were lost; export with more --max-candidates (with --nms per-class a higher --conf helps "
                   "too)", err=True)
    if summary.damage.is_damaged:
        click.echo(f"warning: {of}the input is damaged: {summary.damage}; the results are complete for what was read",
                   err=True)
    if summary.is_interrupted:
        click.echo(f"interrupted: {of}the results hold every frame up to here", err=True)


def tell_failure(ctx: click.Context, source: str, error: BaseException) -> None:
    """Print one line to standard error, with -v after the traceback."""
    if is_verbose(ctx):
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    text = error.line if isinstance(error, StmaskError) else f"{type(error).__name__}: {' '.join(str(error).split())}"
    click.echo(on_one_line(f"error: {text}" if text.startswith(source) else f"error: {source}: {text}"), err=True)
