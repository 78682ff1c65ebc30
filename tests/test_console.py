"""Commands end with one line and the documented exit code, whatever goes wrong inside them."""
from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from stmask_deploy.console import Command
from stmask_deploy.errors import DeviceError, InputError, OutputError, StmaskError


def run(error: BaseException | None, *args: str) -> Result:
    @click.command(cls=Command)
    @click.option("--count", type=int)
    def command(count: int | None) -> None:
        """Does one thing."""
        if error is not None:
            raise error
        click.echo(f"count {count}")

    return CliRunner().invoke(command, list(args))


def test_what_was_added_to_an_error_is_in_its_line() -> None:
    error = OutputError("disk full")
    error.add_note("3 frames before that")
    error.add_note("and more")
    assert error.line == "disk full; 3 frames before that; and more" and str(error) == "disk full"
    assert run(error).output == "error: disk full; 3 frames before that; and more\n"
    assert "add_note" in vars(StmaskError)  # Python 3.10 has none


@pytest.mark.parametrize(("error", "code", "line"), [
    (StmaskError("gate not met"), 1, "error: gate not met"),
    (InputError("no such bundle"), 2, "error: no such bundle"),
    (InputError("a.pth does not fit R50:\n  lacks b"), 2, "error: a.pth does not fit R50:\n  lacks b"),  # a table below
    (OutputError("disk full"), 4, "error: disk full"),
    (DeviceError("no GPU"), 5, "error: no GPU"),
    (KeyboardInterrupt(), 130, "interrupted"),
    (ZeroDivisionError("division by zero"), 1, "error: ZeroDivisionError: division by zero (-v prints the traceback)"),
    (InputError("a\nb\x1b[2J.mp4: no"), 2, r"error: a\nb\x1b[2J.mp4: no"),
    (InputError("x:\n  a\x1b[2J\n  b\nc"), 2, "error: x:\n  a\\x1b[2J\n  b\\nc"),
    (MemoryError(), 1, "error: there is not enough memory for this input; use a smaller one, or a machine with more"),
    (RuntimeError("first\nsecond"), 1, "error: RuntimeError: first (-v prints the traceback)"),
    (ValueError(), 1, "error: ValueError: no further message (-v prints the traceback)"),
])
def test_errors_become_one_line_and_a_code(error: BaseException, code: int, line: str) -> None:
    result = run(error)
    assert (result.exit_code, result.stderr.strip(), result.stdout) == (code, line, "")


@pytest.mark.parametrize("arguments", [(), ("-v",)])
def test_a_message_that_cannot_be_printed_changes_no_code(monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
                                                          ) -> None:
    def gone(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(click, "echo", gone)
    monkeypatch.setattr("traceback.print_exc", gone)
    assert run(InputError("no such bundle"), *arguments).exit_code == 2
    assert run(KeyboardInterrupt(), *arguments).exit_code == 130


def test_verbose_prints_the_traceback_too() -> None:
    result = run(InputError("no such bundle"), "-v")
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert result.stderr.strip().endswith("error: no such bundle")
    assert "-v prints" not in run(ZeroDivisionError("x"), "--verbose").stderr


def test_success_help_and_usage_are_clicks() -> None:
    assert run(None, "--count", "3").output == "count 3\n"
    assert run(None, "--help").exit_code == 0
    assert "--verbose" in run(None, "--help").output
    wrong = run(None, "--count", "three")
    assert wrong.exit_code == 2
    assert "not a valid integer" in wrong.stderr
    assert run(click.BadParameter("--count must be odd")).exit_code == 2


def test_a_closed_pipe_is_quiet() -> None:
    program = """
import click
from stmask_deploy.console import Command
@click.command(cls=Command)
def main():
    for _ in range(100000):
        click.echo("line")
main()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""


def test_what_a_command_opens_takes_no_number_of_a_closed_stream(tmp_path: Path) -> None:
    program = """if True:
        import os, sys, click
        from stmask_deploy.console import Command
        @click.command(cls=Command)
        @click.argument("path")
        def command(path):
            with open(path, "w") as file:
                os.write(2, b"a library's words")
                click.echo("said")
                file.write(str(file.fileno() > 2))
        command()
    """
    path = tmp_path / "results"
    for closed in ("2>&-", ">&- 2>&-", "<&- >&- 2>&-"):
        shell = ["sh", "-c", f'"$0" -c "$1" "$2" {closed}', sys.executable, program, str(path)]
        done = subprocess.run(shell, timeout=60)
        assert (done.returncode, path.read_text()) == (0, "True")


@pytest.mark.parametrize(("number", "told"), [(errno.ENOSPC, "No space left on device"),
                                              (errno.EDQUOT, "Disk quota exceeded")])
def test_a_full_disk_behind_standard_output_is_code_4(number: int, told: str) -> None:
    result = run(OSError(number, told))
    assert result.exit_code == 4
    assert result.output == f"error: output cannot be written: {told}; free some space\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("option", ["--help", "--version"])
def test_a_full_disk_behind_what_is_printed_before_a_command_runs(option: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "stmask_deploy.training", option], stdout=full,
                              stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 4
    assert done.stderr == "error: output cannot be written: No space left on device; free some space\n"


def test_other_errors_before_a_command_runs_are_not_hidden() -> None:
    class Broken(click.ParamType):
        name = "broken"

        def convert(self, *_: Any) -> None:
            raise OSError(errno.EIO, "Input/output error")

    @click.command(cls=Command)
    @click.argument("value", type=Broken())
    def command(value: None) -> None:
        pass

    with pytest.raises(OSError, match="Input/output error"):
        command(["x"])


def test_what_was_printed_is_not_lost_where_threads_are_left() -> None:
    program = """if True:
        import threading, time, click
        from stmask_deploy.console import Command
        from stmask_deploy.workers import WORKER_NAME
        @click.command(cls=Command)
        def command():
            threading.Thread(target=time.sleep, args=(60,), name=WORKER_NAME, daemon=True).start()
            print("8 frames")
            raise KeyboardInterrupt
        command()
    """
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, env=buffered)
    assert (done.returncode, done.stdout, done.stderr) == (130, "8 frames\n", "interrupted\n")
