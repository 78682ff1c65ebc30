"""The JSON report of a benchmark: its options, and the machine and versions that figures were measured on."""
from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

from stmask_deploy.bench.machine import describe_machine, library_versions
from stmask_deploy.report_file import ReportFile


def report_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options --json and --overwrite to a command, which receives a `ReportFile` as `report_file`."""
    @click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write all figures there.")
    @click.option("--overwrite", is_flag=True, help="Replace that file if it exists.")
    @functools.wraps(command)
    def with_file(*args: Any, json_path: Path | None, overwrite: bool, **values: Any) -> None:
        command(*args, report_file=ReportFile(json_path, overwrite), **values)

    return with_file


def new_report(schema: str) -> dict[str, Any]:
    """The common part of every report; call it before measuring, because it records the machine's load."""
    return {"schema": schema, **stamp()}


def stamp() -> dict[str, Any]:
    """When and where figures are measured: date, machine and versions."""
    return {"date": datetime.now(timezone.utc).isoformat(timespec="seconds"), "machine": describe_machine(),
            "versions": library_versions()}
