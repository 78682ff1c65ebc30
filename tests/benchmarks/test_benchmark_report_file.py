"""Benchmarks begin their reports alike, and measure nothing that they cannot keep."""
from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from report_file import new_report, report_options

from stmask_deploy.console import Command
from stmask_deploy.pretrained import demo_bundle
from stmask_deploy.report_file import ReportFile

GIVEN = {  # what each benchmark cannot do without, so that it comes as far as its file
    "accuracy": ["{here}", "--data", "{here}"], "cuda_options": ["{bundle}"], "host_work": [], "key_frames": ["{here}"],
    "lowerings": ["{bundle}"], "peers": [], "scaling": [], "tracking_grid": ["{here}"], "windows": ["{bundle}"]}


def test_a_report_begins_with_the_machine() -> None:
    report = new_report("stmask-something/1")
    assert list(report) == ["schema", "date", "machine", "versions"] and report["schema"] == "stmask-something/1"
    assert report["machine"]["cores"] >= 1 and "numpy" in report["versions"]


def test_the_options_of_a_command(tmp_path: Path) -> None:
    found: list[Any] = []

    @click.command(cls=Command)
    @click.argument("text")
    @report_options
    def command(text: str, report_file: ReportFile) -> None:
        """What it does."""
        found.extend((text, report_file))

    assert CliRunner().invoke(command, ["a", "--json", str(tmp_path / "b"), "--overwrite"]).exit_code == 0
    assert found == ["a", ReportFile(tmp_path / "b", True)] and command.help == "What it does."


@pytest.mark.parametrize("name", GIVEN)
def test_no_benchmark_measures_what_it_cannot_keep(tmp_path: Path, name: str) -> None:
    (tmp_path / "out.json").write_text("keep")
    args = [text.format(here=tmp_path, bundle=demo_bundle()) for text in GIVEN[name]]
    main = importlib.import_module(name).main
    for out, told in ((tmp_path / "nowhere" / "out.json", "nowhere does not exist"), (tmp_path / "out.json", "exists")):
        done = CliRunner().invoke(main, [*args, "--json", str(out)])
        assert done.exit_code == 4 and told in done.output, done.output
    assert (tmp_path / "out.json").read_text() == "keep"
