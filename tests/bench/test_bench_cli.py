"""The command: one real short run on the demo bundle, hand-built bundles for the rest, bad input."""
from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from tiny_bundles import CONFIG, write_bundle

from stmask_deploy.bench import ceiling
from stmask_deploy.bench.cli import default_rows, main
from stmask_deploy.bench.figures import describe_bundles
from stmask_deploy.bench.report import SCHEMA, make_report, read_report
from stmask_deploy.bench.row import Job, Row
from stmask_deploy.bench.tables import report_text
from stmask_deploy.ending_signals import ENDING_SIGNALS
from stmask_deploy.errors import OutputError
from stmask_deploy.pretrained import demo_bundle, demo_clip
from stmask_deploy.runtime.timing import STAGES

QUICK = ["--threads", "1", "--warmup", "1", "--frames", "3"]


def run(*args: object) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args])


@pytest.mark.skipif(sys.platform == "win32", reason="no process groups")
@pytest.mark.parametrize("number", ENDING_SIGNALS)
def test_a_signal_to_all_its_processes_leaves_nothing(tmp_path: Path, number: int) -> None:
    """As by a terminal that is closed."""
    (tmp_path / "scratch").mkdir()
    usual = f"import signal; signal.signal({number}, signal.SIG_DFL); "  # under nohup it would be ignored
    program = [sys.executable, "-c", usual + "from stmask_deploy.bench.cli import main; main()"]
    with subprocess.Popen([*program, "--row", "onnxruntime:f32", "--threads", "1", "--rounds", "1000"],
                          stderr=subprocess.PIPE, text=True, start_new_session=True,
                          env={**os.environ, "TMPDIR": str(tmp_path / "scratch")}) as process:
        assert process.stderr is not None
        assert any("round 1 of" in line for line in process.stderr)
        assert list((tmp_path / "scratch").iterdir())
        os.killpg(process.pid, number)
        told = process.stderr.read()  # until the last process has ended
    assert process.returncode == 128 + number and "Error" not in told, told
    assert not list((tmp_path / "scratch").iterdir())


def test_the_demo_model(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    result = run("--row", "onnxruntime:f32", "--row", "onnxruntime:f32,mode=latency,detect_every=2", *QUICK,
                 "--rounds", 1, "--json", out)
    assert result.exit_code == 0, result.output
    report = read_report(out)
    assert report["video"] == {"name": "clip.mp4", "width": 640, "height": 360,
                               "sha256": hashlib.sha256(demo_clip().read_bytes()).hexdigest()}
    first, second = report["rows"]
    assert set(first["stages_ms"]) >= {*STAGES, "frame", "outside_graphs"} - {"draw", "instance_graph"}
    assert [len(turn) for turn in first["turns"]["run"]] == [len(turn) for turn in first["turns"]["graphs"]] == [3]
    assert first["agreement"]["mean_iou"] == 100
    assert second["agreement"]["reference"] == "onnxruntime:f32"
    # Of three frames the first and the third are key frames; the other one needs no heads.
    assert 0 < second["gflop"] < first["gflop"]
    assert first["of_ceiling"] == pytest.approx(first["gflop_per_s"] / report["ceilings"][0]["gflop_per_s"], rel=0.01)
    assert first["of_ceiling"] > 0 and first["peak_mb"] > 10 and first["startup_s"] > 0
    for told in ("FPS of the graphs", "of ceiling", "onnxruntime:f32,mode=latency,detect_every=2", "frame graph",
                 "outside the graphs", "ceiling onnxruntime:f32: "):
        assert told in result.stdout
    assert str(tmp_path) not in out.read_text()
    unjudged = [{**row, "agreement": None} for row in report["rows"]]
    assert "agreement: not known, as no row in f32 was measured" in report_text({**report, "rows": unjudged},
                                                                              markdown=False)
    assert "not known" not in result.stdout and report["settings"]["cache"] is False


def test_what_is_compiled_is_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    out, cache = tmp_path / "out.json", tmp_path / "compiled"
    result = run("--row", "openvino:f32", *QUICK, "--rounds", 1, "--cache", cache, "--json", out)
    assert result.exit_code == 0, result.output
    assert list(cache.iterdir()) and ", with a cache, load before" in result.stdout
    assert read_report(out)["settings"]["cache"] is True and str(tmp_path) not in out.read_text()


def test_int8_is_measured_by_default_where_the_bundle_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, both = write_bundle(tmp_path / "plain"), write_bundle(tmp_path / "both", precisions=("int8",))
    assert set(default_rows(both)) - set(default_rows(plain)) == {"onnxruntime:int8", "openvino:int8"}
    measured: list[str] = []

    def noted(jobs: Any, *_: object) -> Any:
        measured.extend(str(job.row) for job in jobs)
        raise OutputError("measured")

    monkeypatch.setattr("stmask_deploy.bench.cli._measure", noted)
    for bundle in (plain, both):
        measured.clear()
        assert run(bundle).exit_code == OutputError.exit_code and measured == list(default_rows(bundle))
    measured.clear()
    run(both, "--row", "onnxruntime:f32")
    assert measured == ["onnxruntime:f32"]


def test_figures_outlive_the_reader_of_the_tables(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> str:
        raise BrokenPipeError

    monkeypatch.setattr("stmask_deploy.bench.tables.report_text", gone)
    out = tmp_path / "out.json"
    assert run(write_bundle(tmp_path / "one"), clip, "--row", "onnxruntime:f32", *QUICK, "--rounds", 1,
               "--json", out).exit_code == 1
    assert len(read_report(out)["rows"]) == 1


def test_progress_that_nobody_reads_ends_nothing(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    echo = click.echo

    def printed(*texts: object, err: bool = False, **options: Any) -> None:
        if err and "error" not in str(texts):
            raise OSError(errno.ENOSPC, "No space left on device")
        echo(*texts, err=err, **options)

    monkeypatch.setattr("click.echo", printed)
    result = run(write_bundle(tmp_path / "one"), clip, "--row", "onnxruntime:f32", *QUICK, "--rounds", 1)
    assert result.exit_code == 4 and "onnxruntime:f32" in result.stdout and "FPS of the graphs" in result.stdout


def test_tables_outlive_a_full_disk(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def full(path: Path, **_: object) -> Iterator[Any]:
        raise OutputError(f"{path} cannot be written: No space left on device")
        yield

    monkeypatch.setattr("stmask_deploy.report_file.atomic_file", full)
    result = run(write_bundle(tmp_path / "one"), clip, "--row", "onnxruntime:f32", "--row", "onnxruntime:f32:auto",
                 *QUICK, "--rounds", 1, "--json", tmp_path / "out.json")
    assert result.exit_code == 4 and "No space left" in result.stderr
    assert "FPS of the graphs" in result.stdout and result.stdout.count("ceiling onnxruntime:f32: ") == 1
    assert result.stderr.count("opening onnxruntime:f32\n") <= 1  # the second row is the first one


def test_two_bundles_take_turns_and_rows_that_cannot_run_are_told(tmp_path: Path, clip: Path) -> None:
    bundles = [write_bundle(tmp_path / name, count=3) for name in ("new", "old")]
    result = run(bundles[0], clip, "--row", "onnxruntime:f32,mode=latency", "--row", "openvino:f32", *QUICK,
                 "--rounds", 3, "--compare", bundles[1], "--markdown", "--draw")
    assert result.exit_code == 0, result.output
    assert "Speed against old (export 0123abcd), in the same run" in result.stdout
    assert "| new onnxruntime:f32,mode=latency |" in result.stdout
    assert "| old onnxruntime:f32,mode=latency |" in result.stdout
    assert "new openvino:f32: not available: " in result.stdout and "--openvino makes it" in result.stdout
    assert "| draw |" in result.stdout


def test_bundles_with_other_classes_are_compared_in_speed_alone(tmp_path: Path, clip: Path) -> None:
    bundles = [write_bundle(tmp_path / name, model=dataclasses.replace(CONFIG, class_names=names))
               for name, names in (("new", ("cat", "dog")), ("old", ("dog", "cat")))]
    out = tmp_path / "out.json"
    result = run(bundles[0], clip, "--row", "onnxruntime:f32,mode=latency", *QUICK, "--rounds", 1,
                 "--compare", bundles[1], "--json", out)
    assert result.exit_code == 0, result.output
    new, old = read_report(out)["rows"]
    assert new["agreement"]["mean_iou"] == 100 and old["agreement"] is None
    assert ("old onnxruntime:f32,mode=latency: no agreement: the two bundles name their classes differently"
            in result.stdout)
    assert "Speed against old" in result.stdout and "fewer than 2 rounds" in result.stdout


def test_a_row_whose_process_dies_is_listed_and_the_others_are_kept(tmp_path: Path, clip: Path) -> None:
    bundle = write_bundle(tmp_path / "bundle")
    jobs = [Job(Row.parse(f"onnxruntime:f32,top_k={i}"), bundle, clip, tmp_path / str(i), 1, 1, 3, False)
            for i in (5, 6)]
    first: list[multiprocessing.process.BaseProcess] = []

    def say(line: str) -> None:
        if line == f"opening {jobs[1].row}":
            first.extend(multiprocessing.active_children())
        if line == "round 2 of 2":
            first[0].kill()
            first[0].join()

    report = make_report(jobs, 2, say)
    dead, alive = report["rows"]
    assert dead["not_available"].startswith("its process ended with exit code ")
    assert len(alive["turns"]["run"]) == 2
    assert f"{jobs[0].row}: not available: its process ended" in report_text(report, markdown=False)


def test_against_an_earlier_run(tmp_path: Path, clip: Path) -> None:
    bundle, out = write_bundle(tmp_path / "bundle", count=3), tmp_path / "old.json"
    arguments = (bundle, clip, "--row", "onnxruntime:f32,mode=latency", *QUICK)
    assert run(*arguments, "--rounds", 1, "--json", out).exit_code == 0
    slowed = json.loads(out.read_text())
    for entry, factor in ((slowed["rows"][0]["turns"], 1000), (slowed["ceilings"][0], 1)):
        for name, rounds in entry.items():
            if isinstance(rounds, list):
                entry[name] = [[factor * value for value in turn] for turn in rounds] * 3
    out.write_text(json.dumps(slowed))
    result = run(*arguments, "--rounds", 3, "--compare", out)
    assert result.exit_code == 0, result.output
    assert "faster" in result.stdout and "The machine: plain convolutions onnxruntime:f32" in result.stdout
    assert "Not known" not in result.stdout
    # The same name and size, and other pictures.
    del slowed["video"]["sha256"]
    out.write_text(json.dumps(slowed))
    other = tmp_path / "clip.mp4"
    other.write_bytes(clip.read_bytes() + b"more")
    result = run(bundle, other, *arguments[2:], "--rounds", 1, "--compare", out)
    assert result.exit_code == 0, result.output
    assert "Not known: whether it was the same video" in result.stdout
    slowed["video"]["sha256"] = hashlib.sha256(clip.read_bytes()).hexdigest()
    out.write_text(json.dumps(slowed))
    result = run(bundle, other, *arguments[2:], "--rounds", 1, "--compare", out)
    assert result.exit_code == 2 and "was measured on another video of the name clip.mp4" in result.output


def report_with(**changes: Any) -> str:
    parts: dict[str, Any] = {"schema": SCHEMA, "machine": {}, "versions": {}, "settings": {}, "video": {},
                             "bundles": [{}], "ceilings": [], "rows": []}
    return json.dumps({**parts, **changes})


@pytest.mark.parametrize("text, told", [
    ("{", "is not JSON"),
    ("[]", "expected schema 'stmask-bench/1', found 'list'"),
    (report_with(schema="stmask-latency/1"), "found 'stmask-latency/1'"),
    (report_with(rows={}), "is damaged (rows)"),
    (report_with(rows=[{"row": "a:f32", "bundle": 0, "turns": {"run": [[]]}}]), "is damaged (rows)"),
    (report_with(rows=[{"row": "a:f32", "bundle": 0, "turns": {"run": [[1]], "graphs": [[0, 0]]}}]), "damaged (rows)"),
    (report_with(rows=[{"row": "a:f32", "bundle": 0, "turns": {"run": [[1]], "graphs": [[True]]}}]), "damaged (rows)"),
    (report_with(ceilings=[{"turns": [[1]]}]), "is damaged (ceilings)"),
    (report_with(rows=[{"row": "a:f32", "bundle": 0, "turns": {"run": [[1e300]], "graphs": [[1]]}}]), "damaged (rows)"),
    (report_with(ceilings=[{"name": "a:f32", "gflop": 1e-300, "turns": [[1]]}]), "is damaged (ceilings)"),
    (report_with(bundles=[]), "is damaged (no bundle)"),
    (report_with(video={"name": "other.mp4"}), "measured on the video other.mp4"),
])
def test_an_old_report_that_cannot_be_used(text: str, told: str, tmp_path: Path, clip: Path) -> None:
    old = tmp_path / "old.json"
    old.write_text(text)
    result = run(write_bundle(tmp_path / "bundle"), clip, *QUICK, "--compare", old)
    assert result.exit_code == 2
    assert told in result.output and len(result.output.strip().splitlines()) == 1


@pytest.mark.parametrize(("places", "names"), [
    (["a"], ["a"]), (["a", "b"], ["a", "b"]), (["a/model", "b/model"], ["a/model", "b/model"]),
    (["x/a/model", "y/a/model"], ["x/a/model", "y/a/model"]), (["a", "a"], ["a", "a"]),
])
def test_bundles_have_names_that_tell_them_apart(places: list[str], names: list[str], tmp_path: Path) -> None:
    folders = [tmp_path / place for place in places]
    for folder in dict.fromkeys(folders):
        folder.parent.mkdir(parents=True, exist_ok=True)
        write_bundle(folder)
    assert [entry["name"] for entry in describe_bundles(folders)] == names


@pytest.mark.parametrize("args, told, code", [
    (["nowhere"], "nowhere does not exist", 2),
    (["{bundle}", "nowhere.mp4"], "nowhere.mp4 does not exist", 2),
    (["{bundle}", "{clip}", "--frames", "50"], "has 7 frames and 50 are needed", 2),
    (["{bundle}", "{clip}", "--row", "onnxruntime"], "give BACKEND:PRECISION", 2),
    (["{bundle}", "{clip}", "--compare", "nowhere.json"], "nowhere.json cannot be read", 2),
    (["{bundle}", "{clip}", "--compare", "{bundle}"], "is the bundle that is measured; give another one", 2),
    (["{bundle}", "{clip}", "--compare", "{link}"], "is the bundle that is measured; give another one", 2),
    (["nowhere", "{clip}", "--frames", "3", "--warmup", "1", "--compare", "{bundle}"], "nowhere does not exist", 2),
    (["{bundle}", "{clip}", "--json", "{taken}"], "exists already", 4),
    (["{bundle}", "{clip}", "--json", "{clip}", "--overwrite"], "clip.mp4 is an input of this command", 2),
    (["{bundle}", "{clip}", "--json", "{bundle}/stmask.json", "--overwrite"], "is an input of this command", 2),
    (["{bundle}", "{clip}", "--compare", "{clip}", "--json", "{clip}", "--overwrite"], "is an input of this", 2),
    (["{bundle}", "{clip}", "--frames", "3", "--row", "openvino:f32"], "no row can be measured: openvino:f32: ", 1),
])
def test_bad_input(args: list[str], told: str, code: int, tmp_path: Path, clip: Path) -> None:
    bundle, link = write_bundle(tmp_path / "bundle"), tmp_path / "link"
    link.symlink_to(bundle)
    (tmp_path / "taken.json").write_text("{}")
    result = run(*(arg.format(bundle=bundle, clip=clip, link=link, taken=tmp_path / "taken.json") for arg in args))
    assert result.exit_code == code, result.output
    assert told in result.output


def test_a_bundle_whose_arithmetic_is_not_known_is_measured_all_the_same(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(demo_bundle(), bundle, ignore=shutil.ignore_patterns("*.onnx"))
    done = CliRunner().invoke(main, [str(bundle), *QUICK, "--rounds", "1", "--row", "openvino:f32",
                                     "--json", str(tmp_path / "out.json")])
    assert done.exit_code == 0, done.output
    row = read_report(tmp_path / "out.json")["rows"][0]
    assert row["fps"] > 0 and (row["gflop"], row["gflop_per_s"], row["of_ceiling"]) == (None, None, None)


@pytest.mark.parametrize(("backend", "precision", "on_gpu"), [
    ("onnxruntime", "f32", True), ("onnxruntime", "int8", False),
    ("openvino", "f32", True), ("openvino", "bf16", False)])
def test_the_ceiling_runs_where_its_row_does(monkeypatch: pytest.MonkeyPatch, backend: str, precision: str, on_gpu: bool
                                             ) -> None:
    class Core:
        available_devices = ("CPU", "GPU")

    monkeypatch.setattr(ceiling, "shared_core", Core)
    monkeypatch.setattr(ceiling, "choose_provider", lambda _ort, device: (
        "CPUExecutionProvider" if device == "cpu" else "CUDAExecutionProvider", ""))
    assert ceiling.PlainRunner(ceiling.CeilingJob(backend, precision, "auto", None)).is_on_gpu is on_gpu


def test_no_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.TemporaryDirectory", fail)
    result = run("--row", "onnxruntime:f32")
    assert result.exit_code == 4 and "No usable temporary directory found); set TMPDIR" in result.stderr
