"""The log of a run: JSON lines in the folder, text lines for the user."""
from __future__ import annotations

import json
from pathlib import Path

import pytest

from stmask_deploy.errors import InputError, OutputError
from stmask_deploy.training.log import LOG_FILE, TrainingLog


def test_records_and_lines(tmp_path: Path) -> None:
    lines: list[str] = []
    log = TrainingLog(tmp_path, lines.append)
    log.note("it begins")
    log.losses(20, 1.5e-3, {"total": 3.1415926, "masks": 0.5}, 12.345)
    log.validation(40, {"ap": 12.5, "ap_large": None}, "AP 12.5")
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    seconds = [record.pop("seconds") for record in records[1:]]
    assert records == [
        {"note": "it begins"},
        {"iteration": 20, "rate": 1.5e-3, "pairs_per_s": 12.35, "losses": {"total": 3.14159, "masks": 0.5}},
        {"iteration": 40, "validation": {"ap": 12.5, "ap_large": None}}]
    assert all(0 <= one < 100 for one in seconds)
    assert lines == ["it begins", "    20  total 3.142  masks 0.500  rate 1.50e-03  12.3 pairs/s", "    40  AP 12.5"]


def test_a_resumed_run_appends(tmp_path: Path) -> None:
    for text in ("first", "second"):
        TrainingLog(tmp_path, lambda _line: None).note(text)
    assert (tmp_path / "log.jsonl").read_text().splitlines() == ['{"note": "first"}', '{"note": "second"}']


def test_other_processes_keep_quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines: list[str] = []
    log = TrainingLog(None, lines.append)
    log.note("nothing")
    log.losses(1, 0.1, {"total": 1.0}, 1.0)
    log.validation(1, {}, "nothing")
    assert lines == [] and list(tmp_path.iterdir()) == []


def test_a_folder_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"log\.jsonl cannot be written"):
        TrainingLog(tmp_path / "gone", lambda _line: None).note("lost")


def test_a_log_is_cut_where_a_run_is_resumed(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, lambda _line: None)
    log.note("started")
    for iteration in (20, 40, 60):
        log.losses(iteration, 1e-3, {"total": 1.0}, 2.0)
    with open(tmp_path / LOG_FILE, "a") as file:
        file.write('{"iteration": 30, "los')  # what a crash leaves
    log.resume(45, 7.0)
    records = [json.loads(line) for line in (tmp_path / LOG_FILE).read_text().splitlines()]
    assert [record.get("iteration") for record in records] == [None, 20, 40]
    assert 7.0 <= log.seconds < 100
    TrainingLog(tmp_path / "none", print).resume(3, 1.0)  # nothing was written yet
    assert not (tmp_path / "none").exists()


def test_which_validations_were_recorded(tmp_path: Path) -> None:
    log = TrainingLog(tmp_path, lambda _line: None)
    assert not log.has_validation(20)
    log.losses(20, 1e-3, {"total": 1.0}, 2.0)
    log.validation(40, {"ap": 1.0}, "AP 1.0")
    with open(tmp_path / LOG_FILE, "a") as file:
        file.write('{"iteration": 60, "validation": {"a')
    assert [log.has_validation(iteration) for iteration in (20, 40, 60)] == [False, True, False]
    assert not TrainingLog(None, lambda _line: None).has_validation(40)


@pytest.mark.parametrize("left", [b"\xff\xfe{", b"5\n", b"[1]\n", b'{"iteration": null}\n', b"[" * 100_000 + b"\n"],
                         ids=lambda left: repr(left[:20]))
def test_lines_that_a_crash_left_are_dropped(tmp_path: Path, left: bytes) -> None:
    log = TrainingLog(tmp_path, lambda _line: None)
    log.losses(1, 0.1, {"total": 2.0}, 3.0)
    path = tmp_path / "log.jsonl"
    kept = path.read_bytes()
    path.write_bytes(kept + left)
    assert not log.has_validation(2)
    log.resume(1, 0.0)
    assert path.read_bytes() == kept


def test_a_log_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "log.jsonl").write_text("{}\n")
    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(InputError, match=r"log.jsonl cannot be read \(Permission denied\)"):
        TrainingLog(tmp_path, lambda _line: None).resume(1, 0.0)
