from __future__ import annotations

from pathlib import Path

import click
from click.testing import CliRunner

from stmask_deploy.console import Command
from stmask_deploy.option_types import FloatRange, FrameSize, NamedPath


def test_names_that_are_empty_and_numbers_that_are_none() -> None:
    @click.command(cls=Command)
    @click.option("--path", type=NamedPath())
    @click.option("--share", type=FloatRange(0, 1), default=0.5)
    def command(path: Path | None, share: float) -> None:
        click.echo(f"{path!r} {share}")

    assert CliRunner().invoke(command, ["--path", ".", "--share", "1"]).output == f"{Path('.')!r} 1.0\n"
    assert CliRunner().invoke(command, []).output == "None 0.5\n"
    for arguments, message in ((["--path", ""], "the name is empty"), (["--share", "nan"], "nan is not a number"),
                               (["--share", "1.5"], "1.5 is not in the range")):
        result = CliRunner().invoke(command, arguments)
        assert result.exit_code == 2 and message in result.output


def test_sizes_of_frames() -> None:
    @click.command(cls=Command)
    @click.option("--size", type=FrameSize())
    @click.option("--other", type=FrameSize(), default="48x64", show_default=True)
    def command(size: tuple[int, int] | None, other: tuple[int, int]) -> None:
        """Shows them."""
        click.echo(f"{size} {other}")

    def told(*args: str) -> tuple[int, str]:
        done = CliRunner().invoke(command, args)
        return done.exit_code, done.output

    assert told() == (0, "None (48, 64)\n")
    assert told("--size", " 360X640 ", "--other", "1x2") == (0, "(360, 640) (1, 2)\n")
    for wrong in ("360", "360x", "axb", "-1x5", "1x2x3", "", "123456x1"):
        code, output = told("--size", wrong)
        assert code == 2 and f"{wrong!r} is not HEIGHTxWIDTH, for instance 360x640" in output
    code, output = told("--help")
    assert code == 0 and "--size HxW" in output and "[default: 48x64]" in output
