"""The JSON file of a benchmark: its figures, with the machine and versions they were measured on."""
from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import click

from stmask_deploy.atomic import atomic_file, check_writable
from stmask_deploy.bench.machine import describe_machine, library_versions


@dataclass(frozen=True)
class ReportFile:
    """Where a report is written, or nowhere if `path` is None. Write before printing: the reader's pipe may be closed.

    Raises:
        OutputError: (on construction, before anything is measured) it cannot be written, or it exists and `overwrite`
            is False.
    """

    path: Path | None
    overwrite: bool

    def __post_init__(self) -> None:
        if self.path is not None:
            check_writable(self.path, overwrite=self.overwrite)

    def write(self, report: Mapping[str, Any]) -> None:
        """Write the report, replacing what was written before."""
        if self.path is not None:
            with atomic_file(self.path, overwrite=True) as file:
                file.write(json.dumps(report, indent=1).encode() + b"\n")


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
    return {"schema": schema, "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "machine": describe_machine(), "versions": library_versions()}
