"""Rows are added to a file, and to none of other graphs."""
from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import variants
from click.testing import CliRunner

from stmask_deploy.export.exporter import ExportOptions
from stmask_deploy.pretrained import demo_checkpoint

ROW = {"checkpoint": "a", "variant": "STMask R50", "classes": 40, "seconds": 12.3, "megabytes": 150.2,
       "errors": {"onnxruntime": 1.23e-5}}


def test_a_row() -> None:
    assert variants.line(ROW) == "| a | STMask R50 | 40 | 12.3 s | 150.2 | 1.2e-05 | - |"


def test_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100.0, 112.34])

    def export(_checkpoint: object, folder: Path, _options: object) -> SimpleNamespace:
        folder.mkdir()
        for name, size in (("frame.onnx", 1_500_000), ("temporal.onnx", 2_200_000), ("frame.bin", 5_000_000)):
            (folder / name).write_bytes(bytes(size))
        return SimpleNamespace(reached=lambda: {"onnxruntime": 1e-6})

    monkeypatch.setattr(variants, "export_checkpoint", export)
    monkeypatch.setattr(variants, "time", SimpleNamespace(perf_counter=now.__next__))
    row = variants.measure(demo_checkpoint(), ExportOptions())
    assert row.pop("variant") and row == {"checkpoint": "shapes", "classes": 6, "seconds": 12.3, "megabytes": 3.7,
                                          "errors": {"onnxruntime": 1e-6}}


def test_rows_of_a_file_stay_and_are_of_one_lowering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[tuple[str, str, str | None]] = []
    monkeypatch.setattr(variants, "measure", lambda path, options: measured.append(
        (path.name, options.dcn.value, options.openvino_weights)) or {**ROW, "checkpoint": path.stem})
    file = tmp_path / "rows.json"
    for number, is_headed in ((1, True), (2, False)):
        done = CliRunner().invoke(variants.main, [str(demo_checkpoint()), "--json", str(file), "--openvino"])
        assert done.exit_code == 0 and done.output.startswith(variants.HEADER) == is_headed, done.output
        content = json.loads(file.read_text())
        assert [row["checkpoint"] for row in content["rows"]] == ["shapes"] * number and content["dcn"] == "native"
        assert all({"date", "machine", "versions"} < set(row) for row in content["rows"])
    done = CliRunner().invoke(variants.main, [str(demo_checkpoint()), "--json", str(file), "--dcn", "gridsample"])
    assert done.exit_code == 2 and "holds rows of --dcn native; give another file" in done.output
    assert measured == [("shapes.pth", "native", "f32")] * 2 and json.loads(file.read_text()) == content
