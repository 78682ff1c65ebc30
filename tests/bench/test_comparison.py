"""Reports made up so that it is known what has changed."""
from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundles import save_pictures

from stmask_deploy.bench.bundle_run import describe_video
from stmask_deploy.bench.comparison import Change, check_comparable, compare_bundles, compare_reports
from stmask_deploy.bench.report import read_report
from stmask_deploy.bench.row import Job, Row
from stmask_deploy.bench.tables import comparison_text
from stmask_deploy.errors import InputError

REPOSITORY = Path(__file__).resolve().parent.parent.parent


def turns(seconds: float, seed: int, rounds: int = 5, noise: float = 0.02) -> list[list[float]]:
    rng = np.random.default_rng(seed)
    return [(seconds * (1 + noise * rng.standard_normal(10)) * (1 + noise * rng.standard_normal())).tolist()
            for _ in range(rounds)]


def row(name: str, run: float, graphs: float, seed: int, bundle: int = 0, rounds: int = 5) -> dict[str, Any]:
    return {"row": name, "bundle": bundle, "turns": {"run": turns(run, seed, rounds),
                                                     "graphs": turns(graphs, seed + 100, rounds)}}


def report(rows: list[dict[str, Any]], ceiling: float = 0.1, seed: int = 0, **changes: Any) -> dict[str, Any]:
    return {"date": "2026-11-25", "machine": {"cpu": "A", "cores": 2, "load_before": 1}, "versions": {"openvino": "1"},
            "settings": {"threads": None, "frames": 10, "draw": False},
            "video": {"name": "clip.mp4", "width": 64, "height": 48, "sha256": "ab" * 32},
            "bundles": [{"name": "new", "export_id": "1" * 32}, {"name": "old", "export_id": "2" * 32}], "rows": rows,
            "ceilings": [{"name": "openvino:f32", "gflop": 2.0, "turns": turns(ceiling, seed + 500)}], **changes}


def verdicts(change: Change) -> tuple[str, str]:
    return change.run.verdict, change.graphs.verdict


def test_clearly_faster_slower_and_within_noise() -> None:
    old = report([row("openvino:f32", 1.0, 0.8, 1), row("openvino:f32,mode=latency", 1.0, 0.8, 2)])
    new = report([row("openvino:f32", 0.7, 0.8, 3), row("openvino:f32,mode=latency", 1.4, 0.5, 4)], seed=5)
    first, second = compare_reports(new, old).changes
    assert verdicts(first) == ("faster", "within noise")
    assert verdicts(second) == ("slower", "faster")
    assert first.run.change is not None and first.run.change.ratio == pytest.approx(1 / 0.7, rel=0.05)


def test_what_both_bundles_felt_in_a_round_is_no_noise() -> None:
    drift = [1.0, 1.5, 0.8, 2.0, 1.2]
    rounds = [[[seconds * slow * (1 + noise * number)] for number, slow in enumerate(drift)]
              for seconds, noise in ((0.9, 0.001), (1.0, -0.001))]
    [change] = compare_bundles(report([{"row": "openvino:f32", "bundle": bundle, "turns": {"run": one, "graphs": one}}
                                       for bundle, one in enumerate(rounds)])).changes
    assert verdicts(change) == ("faster", "faster")
    assert change.run.change is not None and change.run.change.ratio == pytest.approx(1 / 0.9, rel=0.01)


def test_what_the_machine_changed_is_not_the_rows() -> None:
    # All is 1.5 times as fast, plain convolutions too; one row has really changed.
    other = "openvino:f32,nms=per-class"
    old = report([row("openvino:f32", 1.5, 1.5, 1), row(other, 1.5, 1.5, 2)], ceiling=0.15)
    new = report([row("openvino:f32", 1.0, 1.0, 3), row(other, 0.5, 1.5, 4)], ceiling=0.10, seed=9,
                 machine={"cpu": "B", "cores": 2, "load_before": 1})
    comparison = compare_reports(new, old)
    first, second = comparison.changes
    assert verdicts(first) == ("within noise", "within noise")
    # Time that stayed the same on a faster machine is a loss.
    assert verdicts(second) == ("faster", "slower")
    assert comparison.machine["openvino:f32"].ratio == pytest.approx(1.5, rel=0.05)
    assert second.graphs.change is not None and second.graphs.change.ratio == pytest.approx(1, rel=0.05)
    assert second.graphs.relative is not None and second.graphs.relative.ratio == pytest.approx(1 / 1.5, rel=0.05)
    assert not comparison.unknown


@pytest.mark.parametrize("ceiling, seconds, told", [
    (0.05, 1.0, "slower"),  # a machine twice as fast, and the row no faster
    (0.20, 1.3, "faster"),  # a machine half as fast, and the row keeps three quarters
    (0.20, 2.0, "within noise"),
    (0.05, 0.5, "within noise"),
])
def test_a_change_against_that_of_the_machine(ceiling: float, seconds: float, told: str) -> None:
    old = report([row("openvino:f32", 1.0, 1.0, 1)], ceiling=0.10)
    new = report([row("openvino:f32", seconds, seconds, 2)], ceiling=ceiling, seed=9,
                 machine={"cpu": "B", "cores": 2, "load_before": 1})
    comparison = compare_reports(new, old)
    assert verdicts(comparison.changes[0]) == (told, told)
    assert not comparison.unknown


@pytest.mark.parametrize("ceiling, seconds, told, is_steady", [
    (0.04, 0.8, "unclear", False),  # convolutions are 2.5 times as fast, the row is 1.25 times
    (0.04, 1.0, "unclear", False),
    (0.25, 1.0, "unclear", False),
    (0.14, 1.0, "unclear", False),
    (0.20, 1.3, "unclear", False),
    (0.05, 0.5, "unclear", False),
    (0.05, 0.2, "faster", False),  # by both
    (0.12, 1.0, "faster", True),
    (0.11, 0.5, "faster", True),
])
def test_other_work_on_the_same_machine(ceiling: float, seconds: float, told: str, is_steady: bool) -> None:
    old = report([row("openvino:f32", 1.0, 1.0, 1)], ceiling=0.10)
    new = report([row("openvino:f32", seconds, seconds, 2)], ceiling=ceiling, seed=9,
                 machine={"cpu": "A", "cores": 2, "load_before": 3}, versions={"openvino": "1", "commit": "1234567"})
    comparison = compare_reports(new, old)  # of another version of this package, which convolutions do not use
    assert verdicts(comparison.changes[0]) == (told, told)
    text = comparison_text(comparison, markdown=False)
    assert ("Not known: whether other work slowed openvino:f32 and its plain convolutions alike" in text) != is_steady


def test_what_machine_and_row_share_in_a_round_goes_out() -> None:
    """Rounds differ by a factor of two, plain convolutions alike."""
    drifts = [[1.0, 2.0, 1.5, 0.9, 1.1], [1.9, 1.0, 0.8, 1.2, 1.6]]
    old, new = (report([{"row": "openvino:f32", "bundle": 0, "turns": {what: [[seconds * drift] for drift in drifts[i]]
                                                                       for what in ("run", "graphs")}}],
                       ceilings=[{"name": "openvino:f32", "gflop": 1.0,
                                  "turns": [[0.1 * drift] for drift in drifts[i]]}])
                for i, seconds in enumerate((1.0, 0.97)))
    (change,) = compare_reports(new, old).changes
    assert verdicts(change) == ("faster", "faster")


def test_rounds_of_two_runs_are_no_pairs() -> None:
    """Both drift alike, by chance."""
    drift = [1.0, 1.5, 0.8, 2.0, 1.2]
    old, new = (report([{"row": "openvino:f32", "bundle": 0, "turns": {what: [[seconds * slow] for slow in drift]
                                                                       for what in ("run", "graphs")}}],
                       ceilings=[{"name": "openvino:f32", "gflop": 1.0, "turns": [[0.1]] * 5}])
                for seconds in (1.0, 0.97))
    (change,) = compare_reports(new, old).changes
    assert verdicts(change) == ("within noise", "within noise")
    for interval in (change.run.change, change.run.relative):
        assert interval is not None and interval.low < 0.9 and interval.high > 1.1


@pytest.mark.parametrize("ceilings", [
    [],
    [{"name": "openvino:bf16", "gflop": 1.0, "turns": turns(0.1, 7)}],
    [{"name": "openvino:f32", "turns": [], "not_available": "it failed"}],
    [{"name": "openvino:f32", "turns": turns(0.1, 7, rounds=2), "not_available": "it failed in round 3"}],
    [{"name": "openvino:f32", "gflop": 1.0, "turns": turns(0.1, 7, rounds=4)}],
])
@pytest.mark.parametrize("is_old", [True, False])
def test_verdicts_that_do_not_know_the_machine_say_so(ceilings: list[dict[str, Any]], is_old: bool) -> None:
    old, new = report([row("openvino:f32", 1.0, 1.0, 1)]), report([row("openvino:f32", 2.0, 1.0, 2)])
    (old if is_old else new)["ceilings"] = ceilings
    comparison = compare_reports(new, old)
    (change,) = comparison.changes
    assert verdicts(change) == ("slower, no ceiling", "within noise, no ceiling")
    told = ("Not known: what the machine changed for openvino:f32: plain convolutions were not measured in every round "
            "of both runs")
    assert told in comparison_text(comparison, markdown=False)


@pytest.mark.parametrize("name", ["2026-11-25-epyc-bench-r50-720p.json", "2026-11-25-epyc-bench-r50-int8.json"])
def test_reports_that_are_kept_stay_comparable(name: str) -> None:
    old = read_report(REPOSITORY / "benchmarks" / "results" / name)
    check_comparable(old, old["settings"], {**old["video"], "sha256": "ab" * 32}, name)
    comparison = compare_reports(old, old)
    assert [verdicts(change) for change in comparison.changes] == [("within noise", "within noise")] * 4
    assert comparison.unknown == ("whether it was the same video: the old run kept its name and size alone",)


def test_two_bundles_in_one_run() -> None:
    rows = [row("openvino:f32", 0.9, 0.7, 1), row("openvino:f32", 1.0, 0.7, 1, bundle=1)]
    comparison = compare_bundles(report(rows))
    (change,) = comparison.changes
    # The same drift in both: what is left of the noise is the ratio.
    assert verdicts(change) == ("faster", "within noise")
    assert comparison.old == "old (export 22222222), in the same run"
    rows[1] = {"row": "openvino:f32", "bundle": 1, "not_available": "no IR"}
    (change,) = compare_bundles(report(rows)).changes
    assert verdicts(change) == ("not available in old (export 22222222)",) * 2


def test_rows_that_cannot_be_compared() -> None:
    old = report([row("a:f32", 1, 1, 1, rounds=1), {"row": "b:f32", "bundle": 0, "not_available": "no IR"}])
    new = report([row("a:f32", 0.5, 0.5, 2), row("b:f32", 1, 1, 3), row("c:f32", 1, 1, 4),
                  {"row": "d:f32", "bundle": 0, "not_available": "no IR"}])
    comparison = compare_reports(new, old)
    assert [change.run.verdict for change in comparison.changes] == [
        "fewer than 2 rounds, no ceiling", "not in the old run", "not in the old run", "not available"]
    assert "inf" not in comparison_text(comparison, markdown=False)


def test_the_text_says_what_else_is_different() -> None:
    old = report([row("openvino:f32", 1.0, 0.8, 1)])
    new = report([row("openvino:f32", 0.7, 0.8, 3)], versions={"openvino": "2"},
                 machine={"cpu": "A", "cores": 4, "load_before": 7})
    text = comparison_text(compare_reports(new, old), markdown=True)
    assert "| row | end to end | of convolutions |  | graphs | of convolutions |  |" in text
    assert "| openvino:f32 | 1.4" in text and "| faster |" in text and "| within noise |" in text
    assert "cores was 2, is 4; openvino was 1, is 2" in text
    assert "load_before" not in text and "--warmup" not in text
    new["settings"] = {**new["settings"], "warmup": 100}
    old["date"] = "a\nb"
    text = comparison_text(compare_reports(new, old), markdown=True)
    new["settings"]["cache"] = True
    assert "--cache was left out, is given" in comparison_text(compare_reports(new, old), markdown=True)
    assert "--cache" not in text and "--warmup was None, is 100" in text and "the run of a\\nb" in text


@pytest.mark.parametrize("settings, video, told", [
    ({}, {"name": "other.mp4"}, r"on the video clip.mp4 \(64x48\), not on other.mp4 \(64x48\)"),
    ({}, {"width": 32}, r"on the video clip.mp4 \(64x48\), not on clip.mp4 \(32x48\)"),
    ({}, {"sha256": "cd" * 32}, "on another video of the name clip.mp4; measure on the same one"),
    ({"frames": 20}, {}, "with frames 10, not 20; give --frames 10"),
    ({"threads": 4}, {}, "with threads None, not 4; leave --threads out$"),
    ({"draw": True}, {}, "with draw False, not True; leave --draw out$"),
])
def test_other_work_is_refused(settings: dict[str, Any], video: dict[str, Any], told: str) -> None:
    old = report([])
    check_comparable(old, old["settings"], old["video"], "old.json")
    with pytest.raises(InputError, match=told):
        check_comparable(old, {**old["settings"], **settings}, {**old["video"], **video}, "old.json")


def job(video: Path, frames: int, warmup: int = 1) -> Job:
    return Job(Row("onnxruntime", "f32"), video, video, video, None, warmup, frames, False)


def test_a_video_is_told_by_what_is_in_its_file(clip: Path, tmp_path: Path) -> None:
    other = tmp_path / "clip.mp4"
    other.write_bytes(clip.read_bytes() + b"more")
    described = describe_video(job(clip, 3))
    assert described == {"name": "clip.mp4", "width": 160, "height": 90,
                         "sha256": hashlib.sha256(clip.read_bytes()).hexdigest()}
    assert describe_video(job(other, 3)) == {**described, "sha256": hashlib.sha256(other.read_bytes()).hexdigest()}


def test_a_folder_is_told_by_the_images_of_a_turn(tmp_path: Path) -> None:
    folder = save_pictures(tmp_path / "images", [10, 20, 30, 40])
    data = b"".join((folder / f"{i}.png").read_bytes() for i in range(2))
    assert describe_video(job(folder, 2))["sha256"] == hashlib.sha256(data).hexdigest()
    assert describe_video(job(folder, 2, warmup=4)) == describe_video(job(folder, 2))
    before = describe_video(job(folder, 3))
    (folder / "2.png").write_bytes((folder / "3.png").read_bytes())
    assert describe_video(job(folder, 3)) != before


def test_chains_of_other_lengths_are_told_apart() -> None:
    # The new run was on a GPU, whose chain has 16 times the arithmetic and takes as long: it is 16 times as fast.
    old, new = (report([row("onnxruntime:f32", seconds, seconds, seed)], seed=seed,
                       ceilings=[{"name": "onnxruntime:f32", "gflop": gflop, "turns": turns(0.1, seed)}],
                       versions={package: "1"})
                for seconds, gflop, seed, package in ((1.0, 13.6, 1, "onnxruntime"),
                                                      (0.125, 217.4, 2, "onnxruntime-gpu")))
    comparison = compare_reports(new, old)
    assert verdicts(comparison.changes[0]) == ("slower", "slower")  # 8 times as fast only
    assert comparison.machine["onnxruntime:f32"].ratio == pytest.approx(16, rel=0.05)
