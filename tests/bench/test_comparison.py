"""Reports made up so that it is known what has changed."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from stmask_deploy.bench.comparison import check_comparable, compare_bundles, compare_reports
from stmask_deploy.bench.tables import comparison_text
from stmask_deploy.errors import InputError


def turns(seconds: float, seed: int, rounds: int = 5, noise: float = 0.02) -> list[list[float]]:
    rng = np.random.default_rng(seed)
    return [(seconds * (1 + noise * rng.standard_normal(10)) * (1 + noise * rng.standard_normal())).tolist()
            for _ in range(rounds)]


def row(name: str, run: float, graphs: float, seed: int, bundle: int = 0, rounds: int = 5) -> dict[str, Any]:
    return {"row": name, "bundle": bundle, "turns": {"run": turns(run, seed, rounds),
                                                     "graphs": turns(graphs, seed + 100, rounds)}}


def report(rows: list[dict[str, Any]], ceiling: float = 0.1, seed: int = 0, **changes: Any) -> dict[str, Any]:
    return {"date": "2026-11-25", "machine": {"cpu": "A", "cores": 2, "load_before": 1}, "versions": {"openvino": "1"},
            "settings": {"threads": None, "frames": 10, "draw": False}, "video": {"name": "clip.mp4", "width": 64},
            "bundles": [{"name": "new", "export_id": "1" * 32}, {"name": "old", "export_id": "2" * 32}], "rows": rows,
            "ceilings": [{"name": "openvino:f32", "turns": turns(ceiling, seed + 500)}], **changes}


def test_clearly_faster_slower_and_within_noise() -> None:
    old = report([row("openvino:f32", 1.0, 0.8, 1), row("openvino:f32,mode=latency", 1.0, 0.8, 2)])
    new = report([row("openvino:f32", 0.7, 0.8, 3), row("openvino:f32,mode=latency", 1.4, 0.5, 4)], seed=5)
    first, second = compare_reports(new, old).changes
    assert (first.run_verdict, first.graphs_verdict) == ("faster", "within noise")
    assert (second.run_verdict, second.graphs_verdict) == ("slower", "faster")
    assert first.run is not None and first.run.ratio == pytest.approx(1 / 0.7, rel=0.05)


def test_what_the_machine_changed_is_not_the_rows() -> None:
    # All is 1.5 times as fast, plain convolutions too; one row has really changed.
    other = "openvino:f32,nms=per-class"
    old = report([row("openvino:f32", 1.5, 1.5, 1), row(other, 1.5, 1.5, 2)], ceiling=0.15)
    new = report([row("openvino:f32", 1.0, 1.0, 3), row(other, 0.5, 1.5, 4)], ceiling=0.10, seed=9)
    comparison = compare_reports(new, old)
    first, second = comparison.changes
    assert (first.run_verdict, first.graphs_verdict) == ("within noise", "within noise")
    # Time that stayed the same on a faster machine is no loss either.
    assert (second.run_verdict, second.graphs_verdict) == ("faster", "within noise")
    assert comparison.machine["openvino:f32"].ratio == pytest.approx(1.5, rel=0.05)


def test_two_bundles_in_one_run() -> None:
    rows = [row("openvino:f32", 0.9, 0.7, 1), row("openvino:f32", 1.0, 0.7, 1, bundle=1)]
    comparison = compare_bundles(report(rows))
    (change,) = comparison.changes
    # The same drift in both: what is left of the noise is the ratio.
    assert (change.run_verdict, change.graphs_verdict) == ("faster", "within noise")
    assert comparison.old == "old (export 22222222), in the same run"


def test_rows_that_cannot_be_compared() -> None:
    old = report([row("a:f32", 1, 1, 1, rounds=2), {"row": "b:f32", "bundle": 0, "not_available": "no IR"}])
    new = report([row("a:f32", 0.5, 0.5, 2), row("b:f32", 1, 1, 3), row("c:f32", 1, 1, 4),
                  {"row": "d:f32", "bundle": 0, "not_available": "no IR"}])
    verdicts = [change.run_verdict for change in compare_reports(new, old).changes]
    assert verdicts == ["fewer than 3 rounds", "not in the old one", "not in the old one", "not available"]


def test_the_text_says_what_else_is_different() -> None:
    old = report([row("openvino:f32", 1.0, 0.8, 1)])
    new = report([row("openvino:f32", 0.7, 0.8, 3)], versions={"openvino": "2"},
                 machine={"cpu": "A", "cores": 4, "load_before": 7})
    text = comparison_text(compare_reports(new, old), markdown=True)
    assert "| openvino:f32 | 1.4" in text and "| faster |" in text and "| within noise |" in text
    assert "cores was 2, is 4; openvino was 1, is 2" in text
    assert "load_before" not in text


@pytest.mark.parametrize("settings, video, told", [
    ({}, {"name": "other.mp4", "width": 64}, "on the video clip.mp4, not on other.mp4"),
    ({"frames": 20}, {}, "with frames 10, not 20; give the same --frames"),
    ({"threads": 4}, {}, "with threads None, not 4"),
])
def test_other_work_is_refused(settings: dict[str, Any], video: dict[str, Any], told: str) -> None:
    old = report([])
    check_comparable(old, old["settings"], old["video"], "old.json")
    with pytest.raises(InputError, match=told):
        check_comparable(old, {**old["settings"], **settings}, video or old["video"], "old.json")
