"""Profiles of the demo model's frame graph, and their summary."""
from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from layer_profile import Layer, OnnxRuntimeProfile, kind_of, main, shares, table

from stmask_deploy.bundle import read_description
from stmask_deploy.pretrained import demo_bundle


def test_kinds() -> None:
    expected = {"FusedConv": "convolution", "Convolution": "convolution", "DeformConv": "deformable convolution",
                "FullyConnectedQuantizedLegacy": "matrix product", "Reorder": "layout and type", "TopK": "TopK"}
    assert {name: kind_of(name) for name in expected} == expected


def test_shares_are_medians_over_runs() -> None:
    def run(convolution: float, other: float) -> list[Layer]:
        return [Layer("convolution", "f32", convolution / 2), Layer("TopK", "f32", other),
                Layer("convolution", "f32", convolution / 2)]

    found = shares([run(3, 1), run(300, 100), run(1, 1), run(1, 3), run(9, 1)])
    assert list(found) == ["convolution, f32", "TopK"]
    assert found == pytest.approx({"convolution, f32": 0.75, "TopK": 0.25})


def test_a_kind_that_is_missing_in_a_run_has_no_share_of_it() -> None:
    runs = [[Layer("convolution", "bf16", 1.0)], [Layer("convolution", "bf16", 1.0)],
            [Layer("convolution", "bf16", 1.0), Layer("convolution", "f32", 1.0)]]
    assert shares(runs) == pytest.approx({"convolution, bf16": 1.0, "convolution, f32": 0.0})


def test_small_kinds_are_not_in_the_table() -> None:
    row = {"ms": 200.0, "gflops": 400.0, "gflops_of_ceiling": 500.0,
           "shares": {"convolution, f32": 0.99, "TopK": 0.001}}
    assert table({"a:f32": row}).splitlines()[-1] == "| a:f32 | 200 | 400 | 80% | convolution, f32 99% |"


def test_every_run_has_its_layers() -> None:
    description = read_description(demo_bundle())
    size = description.model.input_size
    profile = OnnxRuntimeProfile(description.graph_path(demo_bundle(), "frame", "onnxruntime"), 1, ["boxes", "fpn"])
    for _ in range(3):
        profile.run({"frame": np.zeros((1, *size, 3), np.uint8)})
    runs = [[layer.kind for layer in layers] for layers in profile.layers()]
    assert len(runs) == 3 and runs[0] == runs[1] == runs[2] and runs[0].count("convolution") > 20


@pytest.mark.parametrize("row", ["onnxruntime:f32", "openvino:f32"])
def test_the_demo_model(tmp_path: Path, row: str) -> None:
    out = tmp_path / "out.json"
    done = CliRunner().invoke(main, [str(demo_bundle()), "--rows", f"onnxruntime:int8,{row}", "--runs", "2",
                                     "--threads", "1", "--json", str(out)])
    assert done.exit_code == 0, done.output
    assert "onnxruntime:int8 is left out: " in done.stderr  # the bundle has no graphs of int8
    report = json.loads(out.read_text())
    assert list(report["rows"]) == [row]
    found = report["rows"][row]
    assert found["gflops"] == pytest.approx(report["gflop"] / (found["ms"] / 1000))
    assert 0.1 < report["gflop"] < 10  # of a small network
    assert {"convolution, f32", "deformable convolution, f32"} < set(found["shares"])
    assert 0.9 < sum(found["shares"].values()) < 1.1
    assert found["ms"] > 0 and found["gflops"] > 0 and found["gflops_of_ceiling"] > 0


def test_a_row_that_the_bundle_does_not_have() -> None:
    done = CliRunner().invoke(main, [str(demo_bundle()), "--rows", "openvino:int8", "--runs", "1"])
    assert done.exit_code == 2 and "--int8 --calibration VIDEO makes it" in done.output
