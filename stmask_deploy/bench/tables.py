"""Formats figures as text, aligned for a terminal or as Markdown."""
from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stmask_deploy.runtime.timing import STAGES

from .comparison import Comparison, Speed
from .figures import FRAME, OUTSIDE
from .report import Report
from .statistics import Interval

Cells = Sequence[Sequence[str]]  # the first line holds the column headings

_STAGE_NAMES = {name: name.replace("_", " ") for name in STAGES} | {OUTSIDE: "outside the graphs", FRAME: "whole frame"}
_HEADER = ("row", "FPS", "FPS of the graphs", "frame p50 / p90 / p99", "peak MB", "start s", "GFLOP", "of ceiling",
           "agreement AP", "mask IoU")


def format_table(cells: Cells, *, markdown: bool) -> str:
    """One table; the first column is left-aligned, the others right-aligned."""
    if markdown:
        lines = ["| " + " | ".join(line) + " |" for line in cells]
        return "\n".join([lines[0], "|---" + "|---:" * (len(cells[0]) - 1) + "|", *lines[1:]])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join([line[0].ljust(widths[0]), *(cell.rjust(width) for cell, width
                                                            in zip(line[1:], widths[1:], strict=True))]).rstrip()
                     for line in cells)


def report_text(report: Report, *, markdown: bool) -> str:
    """The full text of a report: a summary line per row, stages, ceilings, and what could not be measured."""
    rows = [(_name(row, report), row) for row in report["rows"] if "not_available" not in row]
    parts = [_setup(report), format_table([_HEADER, *(_summary(name, row) for name, row in rows)], markdown=markdown),
             "Milliseconds, p50 / p90 / p99, one frame at a time:", format_table(_stages(rows), markdown=markdown)]
    parts += list(_remarks(report))
    return "\n\n".join(parts)


def comparison_text(comparison: Comparison, *, markdown: bool) -> str:
    """The verdict on every row, and the facts behind it."""
    cells: list[tuple[str, ...]] = [("row", "end to end", "of convolutions", "", "graphs", "of convolutions", ""), *(
        (change.row, *_speed(change.run), *_speed(change.graphs)) for change in comparison.changes)]
    if not comparison.machine:
        cells = [(row, run, told, graphs, also) for row, run, _, told, graphs, _, also in cells]
    parts = [f"Speed against {comparison.old} (99 % interval):", format_table(cells, markdown=markdown)]
    if comparison.machine:
        parts.append("The machine: " + ", ".join(f"plain convolutions {name} {_times(interval)}"
                                                 for name, interval in comparison.machine.items()))
    if comparison.notes:
        parts.append("Else different: " + "; ".join(comparison.notes))
    if comparison.unknown:
        parts.append("Not known: " + "; ".join(comparison.unknown))
    return "\n\n".join(parts)


def _setup(report: Report) -> str:
    machine, video, settings = report["machine"], report["video"], report["settings"]
    bundles = ", ".join(f"{one['variant']} ({one['checkpoint']}, export {one['export_id'][:8]})"
                        for one in report["bundles"])
    threads = f"{settings['threads']} threads" if settings["threads"] else "default threads"
    written = "results and video written" if settings["draw"] else "results written"
    cached = ", with a cache" if settings.get("cache") else ""
    return (f"{bundles}\n{video['name']} {video['width']}x{video['height']}, {settings['frames']} frames x "
            f"{settings['rounds']} rounds, {written}; {machine['cpu']}, {machine['cores']} cores, {threads}"
            f"{cached}, load before {machine['load_before']}")


def _name(row: Mapping[str, Any], report: Report) -> str:
    """The row's name, prefixed with its bundle's name if there are two bundles."""
    return row["row"] if len(report["bundles"]) == 1 else f"{report['bundles'][row['bundle']]['name']} {row['row']}"


def _summary(name: str, row: Mapping[str, Any]) -> tuple[str, ...]:
    agreement = row["agreement"] or {}
    return (name, f"{row['fps']:.2f}", f"{row['graphs_fps']:.2f}", _spread(row["stages_ms"][FRAME]),
            _number(row["peak_mb"], ".0f"), f"{row['startup_s']:.2f}", _number(row["gflop"], ".2f"),
            "-" if row["of_ceiling"] is None else f"{100 * row['of_ceiling']:.0f} %",
            _number(agreement.get("ap"), ".2f"), _number(agreement.get("mean_iou"), ".2f"))


def _stages(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> list[tuple[str, ...]]:
    """One line per stage, one column per row of the benchmark."""
    lines = [("stage", *(name for name, _ in rows))]
    for stage, name in _STAGE_NAMES.items():
        spreads = [row["stages_ms"].get(stage) for _, row in rows]
        if any(spreads):
            lines.append((name, *("-" if spread is None else _spread(spread) for spread in spreads)))
    return lines


def _remarks(report: Report) -> Iterator[str]:
    for entry in report["ceilings"]:
        if entry["gflop_per_s"] is not None:
            yield (f"ceiling {entry['name']}: {entry['gflop_per_s']:.0f} GFLOP/s, a chain of plain 256-channel 3x3 "
                   "convolutions in the same run")
        else:
            yield f"ceiling {entry['name']}: not available: {entry['not_available']}"
    for row in report["rows"]:
        if "not_available" in row:
            yield f"{_name(row, report)}: not available: {row['not_available']}"
        elif "no_agreement" in row:
            yield f"{_name(row, report)}: no agreement: {row['no_agreement']}"
    references = {row["agreement"]["reference"] for row in report["rows"] if row.get("agreement")}
    for reference in references:
        yield f"agreement: with {reference}, AP and mean mask IoU in percent"
    if not references and any("agreement" in row for row in report["rows"]):
        yield "agreement: not known, as no row in f32 was measured; add one, such as --row onnxruntime:f32"


def _spread(spread: Mapping[str, float]) -> str:
    return " / ".join(f"{value:.1f}" for value in spread.values())


def _speed(speed: Speed) -> tuple[str, str, str]:
    return _times(speed.change), _times(speed.relative), speed.verdict


def _times(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    bounds = "" if math.isinf(interval.high) else f" ({interval.low:.3f} to {interval.high:.3f})"
    return f"{interval.ratio:.3f}x{bounds}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
