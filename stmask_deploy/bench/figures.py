"""Computes the figures that the tables show and the JSON stores from the samples."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stmask_deploy.bundle import read_description
from stmask_deploy.errors import InputError
from stmask_deploy.evaluation.compare_runs import compare_runs
from stmask_deploy.evaluation.run_file import read_run_file
from stmask_deploy.runtime.timing import STAGES

from .arithmetic import BundleArithmetic
from .bundle_run import RESULTS_FOLDER, Turn
from .ceiling import CeilingJob
from .rounds import CeilingSamples, RowSamples
from .statistics import percentiles

GRAPHS = ("frame_graph", "instance_graph", "temporal_graph", "prototype_graph")
CODECS = ("decode", "encode")  # depend on the codec and the disk, not on what is detected
FRAME, OUTSIDE = "frame", "outside_graphs"  # a whole frame; the same without its graphs, decode and encode
DIGITS = 7  # decimals of seconds: finer than a microsecond


def row_figures(samples: RowSamples, rates: Mapping[str, float]) -> dict[str, Any]:
    """Figures and samples of one measured row, as plain JSON.

    Args:
        samples: of the row, with at least one turn.
        rates: `str` of a ceiling's job -> its GFLOP per second.

    Returns:
        `fps`: frames per second of the run in the row's mode, everything included. `graphs_fps`: of the graphs alone.
        `stages_ms`: p50, p90 and p99 of every stage that ran, of the time outside the graphs and of the whole frame, in
        mode latency; a stage counts as 0 in frames in which it did not run. `gflop`: mean of the graphs per frame, None
        if the ONNX files lack shapes; `gflop_per_s` is the rate they reached and `of_ceiling` its share of the rate of
        plain convolutions.
        `turns`: the raw seconds, `run` and `graphs`, round by round.
    """
    turns, job = samples.turns, samples.job
    graphs = [_graph_seconds(turn) for turn in turns]
    arithmetic = BundleArithmetic(job.bundle, read_description(job.bundle))
    reached: float | None = None
    gflop: float | None = None
    try:
        flops = [arithmetic.flops(turn.calls) for turn in turns]
    except InputError:  # the remaining figures are still worth reporting
        pass
    else:
        reached = float(np.median([count / sum(seconds) for count, seconds in zip(flops, graphs, strict=True)])) / 1e9
        gflop = sum(flops) / sum(map(len, graphs)) / 1e9
    ceiling = rates.get(str(CeilingJob(job.row.backend, job.row.precision, job.row.device, job.threads)))
    return {
        "device": samples.device, "startup_s": round(samples.startup_s, 3),
        "peak_mb": None if samples.peak_bytes is None else round(samples.peak_bytes / 1e6, 1),
        "fps": _rate([turn.run for turn in turns]), "graphs_fps": _rate(graphs),
        "stages_ms": _stage_figures(turns),
        "gflop": None if gflop is None else round(gflop, 3),
        "gflop_per_s": None if reached is None else round(reached, 2),
        "of_ceiling": round(reached / ceiling, 4) if ceiling and reached else None,
        "turns": {"run": [_rounded(turn.run) for turn in turns], "graphs": [_rounded(seconds) for seconds in graphs]},
    }


def ceiling_figures(samples: CeilingSamples) -> dict[str, Any]:
    """Figures and samples of one ceiling, as plain JSON; `gflop_per_s` is the median, None if it did not run."""
    found = {"name": str(samples.job), "gflop": round(samples.flops / 1e9, 3), "gflop_per_s": None,
             "turns": [_rounded(turn) for turn in samples.turns]}
    if samples.reason:
        return {**found, "not_available": samples.reason}
    seconds = float(np.median([value for turn in samples.turns for value in turn]))
    return {**found, "gflop_per_s": round(samples.flops / seconds / 1e9, 2)}


def agreements(samples: Sequence[RowSamples]) -> dict[int, dict[str, Any]]:
    """Agreement of every measured row with the first f32 row, by position, as plain JSON.

    Returns:
        `agreement`: the numbers of `stmask-eval --agreement`; None if there is no f32 row, or if `no_agreement` states
        a reason.
    """
    measured = {i: row for i, row in enumerate(samples) if not row.reason}
    reference = next((row for row in measured.values() if row.job.row.precision == "f32"), None)
    if reference is None:
        return {i: {"agreement": None} for i in measured}
    truth, names = read_run_file(reference.job.folder / RESULTS_FOLDER), _class_names(reference)
    found: dict[int, dict[str, Any]] = {}
    for i, row in measured.items():
        if _class_names(row) != names:
            found[i] = {"agreement": None, "no_agreement": "the two bundles name their classes differently"}
            continue
        agreement = compare_runs(truth, read_run_file(row.job.folder / RESULTS_FOLDER))
        found[i] = {"agreement": {"reference": str(reference.job.row), **agreement.to_dict()}}
    return found


def _class_names(samples: RowSamples) -> tuple[str, ...]:
    return read_description(samples.job.bundle).model.class_names


def describe_bundles(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """Facts that identify one or two bundles and distinguish them from each other."""
    paths = [folder.resolve() for folder in folders]
    depth = 1  # trailing path components used as names: one, if that keeps them distinct
    while len({path.parts[-depth:] for path in paths}) < len(set(paths)):
        depth += 1
    return [_describe_bundle(path, "/".join(path.parts[-depth:])) for path in paths]


def _describe_bundle(folder: Path, name: str) -> dict[str, Any]:
    description = read_description(folder)
    return {"name": name, "variant": description.model.variant, "export_id": description.export_id,
            "dcn": description.dcn, "input_size": list(description.model.input_size),
            "checkpoint": description.checkpoint_name, "checkpoint_sha256": description.checkpoint_sha256}


def _graph_seconds(turn: Turn) -> list[float]:
    return [sum(stages.get(name, 0.0) for name in GRAPHS) for stages in turn.stages]


def _rate(turns: Sequence[Sequence[float]]) -> float:
    """Total number of frames divided by total time, slow ones included."""
    return round(sum(map(len, turns)) / sum(map(sum, turns)), 3)


def _stage_figures(turns: Sequence[Turn]) -> dict[str, dict[str, float]]:
    frames = [stages for turn in turns for stages in turn.stages]
    totals = np.array([seconds for turn in turns for seconds in turn.frames])
    columns = {name: np.array([stages.get(name, 0.0) for stages in frames]) for name in STAGES
               if any(name in stages for stages in frames)}
    inside = sum((values for name, values in columns.items() if name in GRAPHS + CODECS), np.zeros(len(frames)))
    columns |= {OUTSIDE: totals - inside, FRAME: totals}
    return {name: {key: round(value, 3) for key, value in percentiles((values * 1000).tolist()).items()}
            for name, values in columns.items()}


def _rounded(seconds: Sequence[float]) -> list[float]:
    return [round(value, DIGITS) for value in seconds]
