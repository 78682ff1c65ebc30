"""The JSON report of a benchmark: figures, the samples behind them, and the machine and settings."""
from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from stmask_deploy.errors import InputError
from stmask_deploy.plain_values import is_number
from stmask_deploy.wording import shown

from .bundle_run import describe_video
from .figures import agreements, ceiling_figures, describe_bundles, row_figures
from .machine import describe_machine, library_versions
from .rounds import RowSamples, Say, measure
from .row import Job

SCHEMA = "stmask-bench/1"
_PARTS: Mapping[str, type] = {"machine": dict, "versions": dict, "settings": dict, "video": dict, "bundles": list,
                              "ceilings": list, "rows": list}

Report = dict[str, Any]


def make_report(jobs: Sequence[Job], rounds: int, say: Say) -> Report:
    """Measure all rows and return the report as plain JSON.

    Args:
        jobs: rows of one or two bundles on one video; the bundles' jobs differ only in their folders.
        rounds: turns of each row.
        say: see `measure`.

    Raises:
        InputError: the video or a bundle cannot be used.
        StmaskError: no row can be measured.
    """
    first = jobs[0]
    bundles = list(dict.fromkeys(job.bundle for job in jobs))
    report: Report = {
        "schema": SCHEMA, "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": describe_machine(), "versions": library_versions(),
        "settings": {"threads": first.threads, "warmup": first.warmup, "frames": first.frames, "rounds": rounds,
                     "draw": first.draw, "cache": first.cache is not None},
        "video": describe_video(first),
        "bundles": describe_bundles(bundles)}
    rows, ceilings = measure(jobs, rounds, say)
    report["ceilings"] = [ceiling_figures(samples) for samples in ceilings]
    report["rows"] = _rows(rows, report["ceilings"], bundles)
    return report


def _rows(samples: Sequence[RowSamples], ceilings: Sequence[Mapping[str, Any]], bundles: Sequence[Path]
          ) -> list[dict[str, Any]]:
    rates = {entry["name"]: entry["gflop_per_s"] for entry in ceilings}
    agreed = agreements(samples)
    found = []
    for i, one in enumerate(samples):
        row: dict[str, Any] = {"row": str(one.job.row), "bundle": bundles.index(one.job.bundle)}
        row |= {"not_available": one.reason} if one.reason else {**row_figures(one, rates), **agreed[i]}
        found.append(row)
    return found


def read_report(path: Path) -> Report:
    """Read the JSON report of an earlier benchmark.

    Raises:
        InputError: it cannot be read, is damaged, or does not follow this schema.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}); give a file that stmask-bench --json wrote") from error
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        found = report.get("schema") if isinstance(report, dict) else type(report).__name__
        raise InputError(f"{path}: expected schema {SCHEMA!r}, found {shown(found)}; give a file that "
                         "stmask-bench --json wrote")
    wrong = [name for name, kind in _PARTS.items() if not isinstance(report.get(name), kind)]
    wrong = wrong or [name for name, is_whole in _ENTRIES.items() if not all(map(is_whole, report[name]))]
    if wrong or not report["bundles"]:
        raise InputError(f"{path} is damaged ({', '.join(wrong) or 'no bundle'}); measure again")
    return report


def _is_whole_row(row: Any) -> bool:
    if not isinstance(row, dict) or not isinstance(row.get("row"), str) or "bundle" not in row:
        return False
    turns = row.get("turns")
    return "not_available" in row or isinstance(turns, dict) and all(_are_seconds(turns.get(what))
                                                                     for what in ("run", "graphs"))


def _is_whole_ceiling(entry: Any) -> bool:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        return False
    gflop: Any = entry.get("gflop")
    return "not_available" in entry or (_is_measured(gflop) and gflop > 0 and _are_seconds(entry.get("turns")))


def _are_seconds(rounds: Any) -> bool:
    """Whether there is at least one round and each took time."""
    return isinstance(rounds, list) and bool(rounds) and all(
        isinstance(turn, list) and all(map(_is_measured, turn)) and sum(turn) > 0
        for turn in rounds)


def _is_measured(value: Any) -> bool:
    """Whether it is a possible number of seconds or GFLOP; ratios of any are finite."""
    return is_number(value) and (value == 0 or 1e-12 <= value <= 1e12)


_ENTRIES: Mapping[str, Callable[[Any], bool]] = {
    "bundles": lambda entry: isinstance(entry, dict), "ceilings": _is_whole_ceiling, "rows": _is_whole_row}
