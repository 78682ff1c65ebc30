"""Windows of the demo model's prototypes, each computed once."""
from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import windows
from click.testing import CliRunner
from windows import BASE, SHARES, main, middle_box, runs_of

from stmask_deploy.pretrained import demo_bundle


def test_every_window_is_measured(tmp_path: Path) -> None:
    out = tmp_path / "windows.json"
    done = CliRunner().invoke(main, [str(demo_bundle()), "--rows", "onnxruntime:f32", "--rounds", "1",
                                     "--json", str(out)])
    assert done.exit_code == 0, done.output
    milliseconds = json.loads(out.read_text())["rows"]["onnxruntime:f32"]["milliseconds"]
    assert list(milliseconds) == [BASE, *(f"{share:.0%}" for share in SHARES)]
    assert all(value > 0 for value in milliseconds.values())


def test_only_the_whole_frame_has_all_prototypes(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, set[str]]] = []
    monkeypatch.setattr(windows, "open_backend", lambda _backend, path, outputs, **_options: opened.append(
        (path.stem, set(outputs or ()))))
    list(runs_of(demo_bundle(), "onnxruntime", "f32", 1))
    [(_, whole), (_, part), _] = opened
    assert [role for role, _ in opened] == ["frame", "frame", "prototypes"]
    assert "prototypes" in whole - part and "p3" in part - whole


def test_boxes_have_their_share_of_the_frame() -> None:
    assert middle_box(0).shape == (0, 4)
    for share in SHARES[1:]:
        x1, y1, x2, y2 = middle_box(share)[0]
        np.testing.assert_allclose([(x2 - x1) * (y2 - y1), x1 + x2, y1 + y2], [share, 1, 1], atol=1e-6)


def test_rows_that_are_none() -> None:
    for rows, told in (("foo", "row 'foo' is not known"), ("onnxruntime:f32,", "row '' is not known"),
                       ("onnxruntime:f99", "precision 'f99' is not known"),
                       ("onnxruntime:f32:cuda", "row onnxruntime:f32:cuda: this is measured on the CPU")):
        done = CliRunner().invoke(main, [str(demo_bundle()), "--rows", rows])
        assert done.exit_code == 2 and told in done.stderr


def test_a_bundle_without_ir(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(demo_bundle(), bundle, ignore=shutil.ignore_patterns("openvino"))
    done = CliRunner().invoke(main, [str(bundle), "--rows", "openvino:f32"])
    assert done.exit_code == 2 and "stmask-export CHECKPOINT --openvino makes it" in done.output
    assert done.output.endswith("error: no row could be measured; the reasons are above\n")


def test_a_row_that_cannot_be_measured_is_left_out(tmp_path: Path) -> None:
    out = tmp_path / "windows.json"
    done = CliRunner().invoke(main, [str(demo_bundle()), "--rows", "onnxruntime:int8,onnxruntime:f32", "--rounds", "1",
                                     "--json", str(out)])
    assert done.exit_code == 0 and "onnxruntime:int8 is left out: " in done.stderr
    assert list(json.loads(out.read_text())["rows"]) == ["onnxruntime:f32"]
