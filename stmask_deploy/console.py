"""Behaviour shared by all commands: an error becomes one line on stderr and a documented exit code."""
from __future__ import annotations

import errno
import io
import os
import re
import signal
import sys
import threading
import traceback
from contextlib import suppress
from typing import Any, NoReturn

import click

from .config import MAX_PIXELS
from .errors import EXIT_INTERRUPTED, OutputError, StmaskError
from .wording import on_one_line
from .workers import are_workers_busy

_VERBOSE = "stmask_deploy.verbose"
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Command(click.Command):
    """A click command with `-v/--verbose` and the project's exit codes.

    `StmaskError` ends the command with its own code, Ctrl-C with 130, any other exception with 1; usage errors keep
    click's 2. The traceback is printed only with `-v`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(click.Option(["-v", "--verbose"], is_flag=True, expose_value=False, callback=_keep_verbose,
                                        help="Print the traceback of an error."))

    def main(self, *args: Any, **kwargs: Any) -> Any:
        _occupy_closed_streams()
        # OpenCV reads this when it is loaded, which no command does before.
        os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(MAX_PIXELS))
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a name the terminal cannot encode must not end the command
                stream.reconfigure(errors="backslashreplace")
        try:
            return super().main(*args, **kwargs)
        except OSError as error:  # of --help or --version, which click prints before it invokes the command
            if error.errno not in _FULL:
                raise
            with suppress(OSError):
                click.echo(_no_room(error), err=True)
            sys.exit(OutputError.exit_code)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
            raise  # left to click: usage errors, --help, a closed pipe
        except KeyboardInterrupt:
            ignore_interrupts()
            _say(ctx, "interrupted")
            leave_workers(EXIT_INTERRUPTED)
            ctx.exit(EXIT_INTERRUPTED)
        except StmaskError as error:
            _say(ctx, f"error: {error.line}")
            ctx.exit(error.exit_code)
        except MemoryError:
            _say(ctx, "error: there is not enough memory for this input; use a smaller one, or a machine with more")
            ctx.exit(1)
        except OSError as error:
            if error.errno not in _FULL:
                self._give_up(ctx, error)
            _say(ctx, _no_room(error))
            ctx.exit(OutputError.exit_code)
        except Exception as error:  # last resort: the user still gets one line and an exit code
            self._give_up(ctx, error)

    @staticmethod
    def _give_up(ctx: click.Context, error: Exception) -> NoReturn:
        lines = str(error).strip().splitlines() or ["no further message"]
        hint = "" if is_verbose(ctx) else " (-v prints the traceback)"
        _say(ctx, f"error: {type(error).__name__}: {lines[0]}{hint}")
        ctx.exit(1)


def _no_room(error: OSError) -> str:
    return f"error: output cannot be written: {error.strerror}; free some space"


def ignore_interrupts() -> None:
    """Ignore Ctrl-C for the rest of the process: it is ending, and an interrupt now would only print a traceback."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def leave_workers(code: int) -> None:
    """Exit at once while worker threads are busy, so that no library is unloaded while they use it."""
    if are_workers_busy():
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        os._exit(code)


def _occupy_closed_streams() -> None:
    """Open any closed standard descriptor on the null device.

    Otherwise the next file opened would take its number, and a library's messages on standard error would end up in
    the results.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one


def is_verbose(ctx: click.Context) -> bool:
    """Whether `-v` was given to the command whose context is `ctx`."""
    return bool(ctx.meta.get(_VERBOSE, False))


def _keep_verbose(ctx: click.Context, _param: click.Parameter, value: bool) -> None:
    ctx.meta[_VERBOSE] = value


def _say(ctx: click.Context, message: str) -> None:
    """Print a message, whose lines after the first are indented: what breaks otherwise is part of somebody's name."""
    lines = re.split(r"\n(?=  )", message)
    with suppress(OSError):  # nobody reads it; the exit code still tells
        if is_verbose(ctx):
            traceback.print_exc(file=sys.stderr)
        click.echo("\n".join(map(on_one_line, lines)), err=True)
