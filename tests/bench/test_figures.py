"""Samples made up so that the figures are known."""
from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from stmask_deploy.bench.bundle_run import Turn
from stmask_deploy.bench.ceiling import CeilingJob
from stmask_deploy.bench.figures import ceiling_figures, row_figures
from stmask_deploy.bench.rounds import CeilingSamples, RowSamples
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


def test_stages_in_milliseconds() -> None:
    stages = ({"decode": 0.001, "frame_graph": 0.010, "temporal_graph": 0.002, "masks": 0.004, "encode": 0.003},
              {"decode": 0.001, "frame_graph": 0.030, "masks": 0.004, "encode": 0.003},
              {"decode": 0.001, "frame_graph": 0.020, "masks": 0.004, "encode": 0.003})
    job = Job(Row("openvino", "f32"), demo_bundle(), Path("clip.mp4"), Path("results"), None, 1, 3, False)
    turns = (Turn(stages[:2], (0.025, 0.040), (0.5, 0.25), Counter()), Turn(stages[2:], (0.032,), (0.25,), Counter()))
    figures = row_figures(RowSamples(job, "", "CPU", 1.23456, 123_456_789, turns), {})
    assert figures["stages_ms"] == {name: dict(zip(("p50", "p90", "p99"), values, strict=True)) for name, values in {
        "decode": (1.0, 1.0, 1.0), "frame_graph": (20.0, 28.0, 29.8), "temporal_graph": (0.0, 1.6, 1.96),
        "masks": (4.0, 4.0, 4.0), "encode": (3.0, 3.0, 3.0),
        "outside_graphs": (8.0, 8.8, 8.98), "frame": (32.0, 38.4, 39.84)}.items()}  # without decode and encode: 9, 6, 8
    assert (figures["device"], figures["startup_s"], figures["peak_mb"]) == ("CPU", 1.235, 123.5)
    assert (figures["fps"], figures["graphs_fps"]) == (3.0, pytest.approx(3 / 0.062, abs=1e-3))
    assert figures["turns"] == {"run": [[0.5, 0.25], [0.25]], "graphs": [[0.012, 0.03], [0.02]]}
    assert figures["of_ceiling"] is None


def test_a_ceiling_is_its_median() -> None:
    job = CeilingJob("openvino", "bf16", "auto", 2)
    found = ceiling_figures(CeilingSamples(job, "", 2_000_000_000, ((0.1, 0.2), (0.4,))))
    assert found == {"name": str(job), "gflop": 2.0, "gflop_per_s": 10.0, "turns": [[0.1, 0.2], [0.4]]}
    broken = ceiling_figures(CeilingSamples(job, "it failed", 2_000_000_000, ()))
    assert broken["gflop_per_s"] is None and broken["not_available"] == "it failed"
