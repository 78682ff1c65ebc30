from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from run_sample import records, write_lines
from tiny_dataset import as_json, dataset, entry

from stmask_deploy.evaluation.cli import main

A, B = (0, 0, 10, 10), (0, 20, 10, 10)
DATASET = dataset((1, 3, [A, A]), (4, 8, [B, None]), videos=(1, 4))
PERFECT = [entry(1, 3, 0.9, [A, A]), entry(4, 8, 0.8, [B, None])]


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    return write(tmp_path / "valid.json", as_json(DATASET))


def write(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value))
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_a_result_list(tmp_path: Path, annotations: Path) -> None:
    scores = tmp_path / "scores.json"
    result = run(write(tmp_path / "results.json", PERFECT), annotations, "--json", scores)
    assert result.exit_code == 0, result.output
    assert "2 videos, 2 tracks, 2 results" in result.stdout
    assert "all classes       2   100.0   100.0   100.0   100.0       -       -   100.0   100.0" in result.stdout
    assert "identities: 0 switches, 0.0 per ten tracks (results of score 0.3 and more)" in result.stdout
    assert "masks: J 100.0 over 3 object frames; 100.0 % of them matched, with a mean IoU of 100.0" in result.stdout
    loaded = json.loads(scores.read_text())
    assert (loaded["ap"], loaded["videos"], loaded["identities"]["j"]) == (pytest.approx(100), 2, 100)


def test_the_score_from_which_results_are_shown(tmp_path: Path, annotations: Path) -> None:
    results = write(tmp_path / "results.json", [{**one, "score": 0.2} for one in PERFECT])
    assert "J 0.0" in run(results, annotations).stdout
    assert "J 100.0" in run(results, annotations, "--shown-score", 0.1).stdout
    assert run(results, annotations, "--shown-score", 2).exit_code == 2
    told = run(write(tmp_path / "results.json", [{**one, "score": 0} for one in PERFECT]), annotations,
               "--shown-score", 0).stdout
    assert "J 100.0" in told and "(results of score 0 and more)" in told


def test_one_video_of_a_list(tmp_path: Path, annotations: Path) -> None:
    results = write(tmp_path / "results.json", PERFECT[:1])
    assert "all classes       2    50.0" in run(results, annotations).stdout
    assert "1 video, 1 track, 1 result" in run(results, annotations, "--video", "video1").stdout


def test_results_of_one_video(tmp_path: Path, annotations: Path) -> None:
    results = write_lines(tmp_path / "results.jsonl", records([[(5, 2, 0.5, B)], []], "video4.mp4"))
    result = run(results, annotations)
    assert result.exit_code == 0, result.output
    assert "1 video, 1 track, 1 result" in result.stdout and "dog               1   100.0" in result.stdout


def test_a_folder_of_runs(tmp_path: Path, annotations: Path) -> None:
    write_lines(tmp_path / "runs" / "video4" / "results.jsonl", records([[(5, 2, 0.5, B)], []]))
    result = run(tmp_path / "runs", annotations)
    assert result.exit_code == 0, result.output
    assert "warning: 1 of 2 videos have no results" in result.stderr and "video1" in result.stderr
    assert "all classes       2    50.0" in result.stdout


@pytest.mark.parametrize("name", ["results.jsonl", "results.json", "video.mp4"])
@pytest.mark.parametrize("given", ["runs", "runs/video4", "runs/video4/results.jsonl", "runs/video4/results.json"])
def test_nothing_of_the_runs_is_replaced(tmp_path: Path, annotations: Path, given: str, name: str) -> None:
    folder = tmp_path / "runs" / "video4"
    write_lines(folder / "results.jsonl", records([[(5, 2, 0.5, B)], []], "video4"))
    (folder / "results.json").write_text("[]")
    (folder / name).touch()
    before = (folder / name).read_bytes()
    result = run(tmp_path / given, annotations, "--json", folder / name, "--overwrite")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert f"{name} is an input of this command and would be replaced" in result.stderr
    assert (folder / name).read_bytes() == before
    assert run(tmp_path / given, annotations, "--json", folder / "scores.json").exit_code == 0


def test_the_first_missing_runs_are_named(tmp_path: Path) -> None:
    videos = dataset((1, 3, [A, A]), videos=tuple(range(1, 9)))
    annotations = write(tmp_path / "valid.json", as_json(videos))
    write_lines(tmp_path / "runs" / "video1" / "results.jsonl", records([[(5, 1, 0.5, A)], []]))
    told = run(tmp_path / "runs", annotations).stderr
    assert told == ("warning: 7 of 8 videos have no results and are scored as empty: video2, video3, video4, video5, "
                    "video6, ...\n")
    annotations.write_text(annotations.read_text().replace("video2/", r"video\n2/"))
    assert "as empty: video\\n2, video3" in run(tmp_path / "runs", annotations).stderr


def test_agreement(tmp_path: Path) -> None:
    frames = [[(1, 1, 0.5, A), (2, 2, 0.5, B)], [(1, 1, 0.5, A)]]
    reference = write_lines(tmp_path / "a" / "results.jsonl", records(frames))
    found = write_lines(tmp_path / "b" / "results.jsonl", records([frames[0], []]))
    scores = tmp_path / "scores.json"
    result = run("--agreement", reference, found, "--json", scores)
    assert result.exit_code == 0, result.output
    assert "rows: 2 matched, recall 66.7, precision 100.0" in result.stdout
    assert json.loads(scores.read_text())["recall"] == pytest.approx(200 / 3)
    # The option names the truth: the other way round a row is too many.
    assert "recall 100.0, precision 66.7" in run("--agreement", found, reference).stdout


def test_wrong_use(tmp_path: Path, annotations: Path) -> None:
    results = write(tmp_path / "results.json", PERFECT)
    for arguments in ((), (results,), (results, annotations, "--agreement", results),
                      (results, "--agreement", results, "--video", "1"),
                      (results, "--agreement", results, "--shown-score", "0.5")):
        assert run(*arguments).exit_code == 2, arguments


def test_what_cannot_be_used_ends_with_2(tmp_path: Path, annotations: Path) -> None:
    results = write(tmp_path / "results.json", [{**PERFECT[0], "video_id": 9}])
    bad = run(results, annotations)
    assert bad.exit_code == 2
    assert bad.stderr == f"error: {results}: [0]: video_id 9 is not among the videos of {annotations}\n"
    without = write(tmp_path / "test.json", {**as_json(DATASET), "annotations": None})
    assert "has no annotations" in run(write(tmp_path / "good.json", PERFECT), without).stderr
    assert run(results, tmp_path / "missing.json").exit_code == 2
    assert run("--agreement", results, results).exit_code == 2


def test_a_json_file_that_exists_is_kept(tmp_path: Path, annotations: Path) -> None:
    results, scores = write(tmp_path / "results.json", PERFECT), write(tmp_path / "scores.json", "mine")
    refused = run(results, annotations, "--json", scores)
    assert (refused.exit_code, refused.stdout) == (4, "")
    assert json.loads(scores.read_text()) == "mine"
    assert run(results, annotations, "--json", scores, "--overwrite").exit_code == 0
    assert json.loads(scores.read_text())["videos"] == 2
    for path in (results, annotations):
        before = path.read_bytes()
        done = run(results, annotations, "--json", path, "--overwrite")
        assert done.exit_code == 2 and "is an input of this command" in done.stderr and path.read_bytes() == before


def test_names_that_a_terminal_cannot_show(tmp_path: Path) -> None:
    values = as_json(DATASET)
    values["categories"][0]["name"] = "\u9b5a"
    annotations, results = write(tmp_path / "valid.json", values), write(tmp_path / "results.json", PERFECT)
    scores = tmp_path / "scores.json"
    command = "from stmask_deploy.evaluation.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", command, str(results), str(annotations), "--json", str(scores)],
                          capture_output=True, env={**os.environ, "PYTHONIOENCODING": "latin-1"}, timeout=60)
    assert done.returncode == 0, done.stderr
    assert b"\\u9b5a" in done.stdout and json.loads(scores.read_text())["videos"] == 2
