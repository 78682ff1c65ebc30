"""What a measurement gave is not lost, and nothing is lost to it."""
from __future__ import annotations

import json
from pathlib import Path

import pytest

from stmask_deploy.errors import InputError, OutputError
from stmask_deploy.report_file import ReportFile


def test_a_file_is_written_as_often_as_there_is_more(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    file = ReportFile(path, overwrite=False)
    for rows in ([1], [1, 2]):
        file.write({"rows": rows})
        assert json.loads(path.read_text()) == {"rows": rows}
    assert list(tmp_path.iterdir()) == [path]
    ReportFile(None, overwrite=False).write({})


def test_another_ones_file_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_text("keep")
    with pytest.raises(OutputError, match="exists already; use --overwrite"):
        ReportFile(path, overwrite=False)
    assert path.read_text() == "keep"
    ReportFile(path, overwrite=True).write({})
    assert path.read_text() == "{}\n"


def test_an_input_is_never_replaced(tmp_path: Path) -> None:
    data = tmp_path / "data.json"
    data.write_text("keep")
    (tmp_path / "link.json").symlink_to(data)
    for name in ("data.json", "link.json"):
        with pytest.raises(InputError, match=f"{name} is an input of this command"):
            ReportFile(tmp_path / name, overwrite=True, inputs=[tmp_path / "gone.json", data])
    ReportFile(tmp_path / "other.json", overwrite=True, inputs=[data]).write({})
    assert data.read_text() == "keep"


def test_a_file_that_came_in_the_meantime_is_kept(tmp_path: Path) -> None:
    file = ReportFile(tmp_path / "out.json", overwrite=False)
    (tmp_path / "out.json").write_text("keep")
    with pytest.raises(OutputError, match="exists already"):
        file.write({})
    assert (tmp_path / "out.json").read_text() == "keep"


def test_what_is_no_json_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        ReportFile(tmp_path / "out.json", overwrite=False).write({"ap": float("nan")})
    assert list(tmp_path.iterdir()) == []
