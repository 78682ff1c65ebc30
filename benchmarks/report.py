"""Samples -> figures -> the table."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rows import TORCH, Sample

from stmask_deploy.runtime.timing import STAGES

GRAPHS = ("frame_graph", "temporal_graph")
APART = ("decode", "encode")  # depend on the codec and the disk, not on what is found
OUTSIDE = "outside_graphs"  # the frame without its graphs, decode and encode: what the runtime itself costs
FRAME = "frame"
NAMES = {name: name.replace("_", " ") for name in STAGES} | {OUTSIDE: "outside the graphs", FRAME: "whole frame"}


def summarise(samples: Sequence[Sample]) -> dict[str, Any]:
    """Figures of one row.

    Args:
        samples: at least one frame.

    Returns:
        `stages_ms`: p50, p90 and min of every stage, of the time outside the graphs (what no stage claims included, but
        not decode and encode) and of the whole frame; a stage counts as 0 in frames where it did not run, and is left
        out where it never did. `fps`: frames by the time they took together. `shown`, `tracked`: median, least and
        most objects in a frame.
    """
    totals = np.array([sample.total for sample in samples])
    columns = {name: np.array([sample.stages.get(name, 0.0) for sample in samples]) for name in STAGES
               if any(name in sample.stages for sample in samples)}
    inside = [values for name, values in columns.items() if name in GRAPHS + APART]
    columns |= {OUTSIDE: totals - sum(inside), FRAME: totals}
    return {
        "frames": len(samples),
        "stages_ms": {name: _spread(values * 1000, {"p50": 50, "p90": 90, "min": 0}, 3)
                      for name, values in columns.items()},
        "fps": round(len(samples) / float(totals.sum()), 3),
        **{name: _spread(np.array([getattr(sample, name) for sample in samples]), {"p50": 50, "min": 0, "max": 100}, 1)
           for name in ("shown", "tracked")},
    }


def _spread(values: Any, percentiles: Mapping[str, float], digits: int) -> dict[str, float]:
    return {name: round(float(np.percentile(values, q)), digits) for name, q in percentiles.items()}


def add_speedups(rows: Sequence[dict[str, Any]]) -> None:
    """Give every measured row its `speedup` against PyTorch by median, of the whole frame and of each graph."""
    reference = next((row for row in rows if row["row"].startswith(TORCH) and "stages_ms" in row), None)
    if reference is None:
        return
    for row in rows:
        if "stages_ms" in row:
            row["speedup"] = {name: round(reference["stages_ms"][name]["p50"] / row["stages_ms"][name]["p50"], 2)
                              for name in (FRAME, *GRAPHS) if row["stages_ms"].get(name, {}).get("p50")}


def latency_table(report: Mapping[str, Any]) -> str:
    """The report as Markdown: one table a bundle, a line a stage, a column a row of the comparison."""
    return "\n\n".join(_bundle_table(bundle, report["graphs_only"]) for bundle in report["bundles"])


def _bundle_table(bundle: Mapping[str, Any], graphs_only: bool) -> str:
    measured = [row for row in bundle["rows"] if "stages_ms" in row]
    lines = [f"### {bundle['variant']} ({bundle['checkpoint']}, export {bundle['export_id'][:8]})", ""]
    if measured:
        lines += _line("ms: p50 / p90 / min", (row["row"] for row in measured))
        lines.append("|---" + "|---:" * len(measured) + "|")
        shown_stages = [*GRAPHS] if graphs_only else [*STAGES, OUTSIDE, FRAME]
        for stage in shown_stages:
            if any(stage in row["stages_ms"] for row in measured):
                lines += _line(NAMES[stage], (_times(row["stages_ms"].get(stage)) for row in measured))
        lines += _closing_lines(measured, graphs_only)
    for row in bundle["rows"]:
        if "not_available" in row:
            lines += ["", f"{row['row']}: not available: {row['not_available']}"]
    return "\n".join(lines)


def _closing_lines(measured: Sequence[Mapping[str, Any]], graphs_only: bool) -> list[str]:
    lines = []
    names = GRAPHS if graphs_only else (FRAME, "frame_graph")
    for name in names:
        ratios = [row.get("speedup", {}).get(name) for row in measured]
        if any(ratio is not None for ratio in ratios):
            lines += _line(f"{NAMES[name]}, times PyTorch's speed",
                           ("-" if ratio is None else f"{ratio:.2f}" for ratio in ratios))
    if not graphs_only:
        lines += _line("frames a second, end to end", (f"{row['fps']:.2f}" for row in measured))
        for name in ("shown", "tracked"):
            lines += _line(f"objects {name}: median (least to most)",
                           (f"{row[name]['p50']:g} ({row[name]['min']:g} to {row[name]['max']:g})" for row in measured))
    return lines


def _times(spread: Mapping[str, float] | None) -> str:
    return "-" if spread is None else f"{spread['p50']:.1f} / {spread['p90']:.1f} / {spread['min']:.1f}"


def _line(name: str, cells: Any) -> list[str]:
    return ["| " + " | ".join([name, *cells]) + " |"]
