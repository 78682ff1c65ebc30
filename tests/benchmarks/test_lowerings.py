"""The forms of the demo model's graphs, each run once."""
from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("openvino")

from accuracy import winograd_everywhere  # noqa: E402
from click.testing import CliRunner  # noqa: E402
from lowerings import FORMS, main, without_deformation  # noqa: E402

from stmask_deploy.bundle import read_description  # noqa: E402
from stmask_deploy.pretrained import demo_bundle  # noqa: E402
from stmask_deploy.runtime.openvino_backend import shared_core  # noqa: E402

SMALL_GRAPHS = {"instances graph", "prototypes graph", "temporal graph", "temporal graph, kernel of RoIAlign"}


def test_every_form_is_measured(tmp_path: Path) -> None:
    out = tmp_path / "lowerings.json"
    with winograd_everywhere():
        done = CliRunner().invoke(main, [str(demo_bundle()), "--beside", str(demo_bundle()), "--precision", "f32",
                                         "--rounds", "1", "--json", str(out)])
    assert done.exit_code == 0, done.output
    row = json.loads(out.read_text())["rows"]["f32"]
    whole = {f"{form}, {which}" for form in FORMS
             for which in ("all outputs", "outputs of a run", "outputs of a run, Winograd")}
    winograd = {f"{name}, Winograd" for name in ("prototypes graph", "prototypes graph of one size", "temporal graph")}
    variant = read_description(demo_bundle()).model.variant
    beside = {f"{variant}: {name}" for name in whole if name.startswith("plain")}
    assert set(row["milliseconds"]) == whole | SMALL_GRAPHS | winograd | beside and len(beside) == 3
    assert all(value > 0 for value in row["milliseconds"].values()) and row["gflops_of_ceiling"] > 0
    assert all(f"  {name} " in done.output for name in row["milliseconds"])


def test_the_network_without_deformation_has_its_plain_convolutions() -> None:
    model = shared_core().read_model(read_description(demo_bundle()).graph_path(demo_bundle(), "frame", "openvino"))

    def count(kind: str) -> int:
        return sum(node.get_type_name() == kind for node in model.get_ordered_ops())

    deformable, plain = count("DeformableConvolution"), count("Convolution")
    without_deformation(model)
    assert deformable > 0 and count("DeformableConvolution") == 0
    # Those that gave the offsets lead nowhere any more.
    assert count("Convolution") <= plain + deformable


def test_a_bundle_without_ir(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    shutil.copytree(demo_bundle(), bundle, ignore=shutil.ignore_patterns("openvino"))
    done = CliRunner().invoke(main, [str(bundle)])
    assert done.exit_code == 2 and "stmask-export CHECKPOINT --openvino makes it" in done.output


def test_a_precision_that_the_cpu_lacks_is_no_row() -> None:
    able = shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    lacking = [precision for precision in ("bf16", "f16") if {"f16": "FP16"}.get(precision, "BF16") not in able]
    used = "f32" if "bf16" in lacking else "bf16"  # asked for f16, a CPU with bf16 takes that
    for precision in lacking:
        done = CliRunner().invoke(main, [str(demo_bundle()), "--precision", precision, "--rounds", "1"])
        assert done.exit_code == 5
        assert f"this CPU computes in {used}, not in {precision}; leave --precision {precision} out" in done.output
    if not lacking:
        pytest.skip("this CPU has both")
