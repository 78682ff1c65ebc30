"""Samples made up so that the figures are known."""
from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from stmask_deploy.bench.bundle_run import Turn
from stmask_deploy.bench.figures import row_figures
from stmask_deploy.bench.rounds import RowSamples
from stmask_deploy.bench.row import Job, Row
from stmask_deploy.bench.watched_graph import Call
from stmask_deploy.bundle import read_description
from stmask_deploy.pretrained import demo_bundle


def turn(run: list[float], graph: list[float], calls: int) -> Turn:
    return Turn(tuple({"frame_graph": seconds} for seconds in graph), tuple(run), tuple(run),
                Counter({Call("prototypes", ("prototypes",), 960): calls}))


def test_rates_and_arithmetic_are_of_all_frames_together() -> None:
    model = read_description(demo_bundle()).model
    width = model.proto_width
    call = 960 * 2 * (9 * width * (model.fpn_width + 2 * width) + 4 * width * (9 * width + model.num_prototypes)) / 1e9
    turns = (turn([1.0, 1.0], [0.5, 0.5], calls=20), turn([0.25, 0.25, 0.25, 0.25], [0.125] * 4, calls=40))
    job = Job(Row("onnxruntime", "f32"), demo_bundle(), Path("clip.mp4"), Path("results"), None, 1, 4, False)
    figures = row_figures(RowSamples(job, "", "CPU", 1.0, None, turns), {"onnxruntime:f32": 1000 * call})
    assert (figures["fps"], figures["graphs_fps"]) == (2.0, 4.0)
    assert figures["gflop"] == pytest.approx(10 * call, abs=6e-4)
    assert figures["gflop_per_s"] == pytest.approx((20 + 80) / 2 * call, abs=6e-3)
    assert figures["of_ceiling"] == pytest.approx(0.05)
