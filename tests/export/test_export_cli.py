from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from tiny_networks import TINY

from stmask_deploy.bundle import read_description
from stmask_deploy.export.cli import main
from stmask_deploy.export.exporter import ExportOptions
from stmask_deploy.export.plan import assumptions, plan_lines
from stmask_deploy.export.verification import Check, Verification
from stmask_deploy.models.checkpoint import load_checkpoint
from stmask_deploy.models.stmask import build_stmask
from stmask_deploy.pretrained import demo_bundle, demo_checkpoint, demo_clip


def export(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(main, [str(one) for one in arguments])
    return result.exit_code, result.output


def test_a_reader_that_goes_away_costs_no_bundle(tiny_checkpoint: Path, tmp_path: Path,
                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    def export_checkpoint(_loaded: object, folder: Path, *_: object, say: Callable[[str], None], **__: object
                          ) -> Verification:
        say("half of it")
        folder.mkdir()
        return Verification((Check("onnxruntime", "frame/boxes", (1, 4), 1e-6, 1e-4),))

    monkeypatch.setattr("stmask_deploy.export.exporter.export_checkpoint", export_checkpoint)
    assert export(tiny_checkpoint, "-o", tmp_path / "told")[0] == 0
    monkeypatch.setattr("click.echo", gone)
    assert export(tiny_checkpoint, "-o", tmp_path / "bundle")[0] == 4
    assert (tmp_path / "bundle").is_dir()


def test_a_dry_run_prints_the_plan_and_writes_nothing(tiny_checkpoint: Path) -> None:
    before = set(tiny_checkpoint.parent.iterdir())
    code, output = export(tiny_checkpoint, "--dry-run", "--openvino", "--openvino-weights", "f16")
    assert code == 0
    for part in ("STMask R17-DCN", "FCB(ada/ali: class+mask)", "72x100, padded to 96x128", "frame.onnx",
                 "temporal.onnx", "32 DeformConv", "uint8 (1, 72, 100, 3) BGR",
                 "box_deltas      (N, 4)", "f16 weights"):
        assert part in output, part
    assert set(tiny_checkpoint.parent.iterdir()) == before


def test_the_plan_says_how_the_bundle_will_be_tracked(tiny_checkpoint: Path) -> None:
    _, output = export(tiny_checkpoint, "--dry-run")
    assert "(--tracking): released,new_object_score=1.4" in output
    _, output = export(tiny_checkpoint, "--dry-run", "--tracking", "paper,epsilon=0.5")
    assert "(--tracking): paper,alpha=1,beta=1,epsilon=0.5" in output
    plain = assumptions(replace(load_checkpoint(tiny_checkpoint).config, temporal=None))
    assert plain[-1].endswith("(--tracking): frame,new_object_score=1.4")  # what such a bundle is really tracked by


def test_the_plan_is_what_is_written(tiny_checkpoint: Path, gridsample_bundle: Path) -> None:
    _, output = export(tiny_checkpoint, "--dry-run", "--dcn", "gridsample", "--max-candidates", 60)
    planned = float(output.split("frame.onnx")[1].split("MB")[0])
    assert planned == pytest.approx((gridsample_bundle / "frame.onnx").stat().st_size / 1e6, abs=0.5)
    assert "2 stmask::ModulatedDeformConv" in output and "30 stmask::DeformConv" in output


def test_planned_sizes_are_those_of_the_demo_bundle() -> None:
    description = read_description(demo_bundle())
    lines = plan_lines(description, ExportOptions())
    for role in description.roles:
        [planned] = [float(line.split()[1]) for line in lines if line.startswith(f"{role}.onnx ")]
        assert planned == pytest.approx((demo_bundle() / f"{role}.onnx").stat().st_size / 1e6, rel=0.1, abs=0.1), role


@pytest.mark.parametrize("weights", ["f16", "f32"])
def test_planned_sizes_for_openvino_are_those_of_its_weights(weights: str) -> None:
    description = read_description(demo_bundle())
    assert description.openvino_weights == "f32"
    lines = plan_lines(description, ExportOptions(openvino_weights=weights))
    for role in description.roles:
        stored = description.graph_path(demo_bundle(), role, "openvino").with_suffix(".bin").stat().st_size
        [planned] = [float(line.split()[2]) for line in lines if line.startswith(f"openvino/{role}.xml, .bin ")]
        assert planned == pytest.approx(stored / (2 if weights == "f16" else 1) / 1e6, rel=0.1, abs=0.1), role


def test_the_plan_names_the_files_of_other_precisions(tiny_checkpoint: Path, gridsample_bundle: Path) -> None:
    def planned(*options: str) -> set[str]:
        _, output = export(tiny_checkpoint, "--dry-run", *options)
        return set(re.findall(r"^(\S+\.(?:onnx|xml))\b", output, re.MULTILINE))

    written = {path.relative_to(gridsample_bundle).as_posix() for path in gridsample_bundle.rglob("*")
               if path.suffix in (".onnx", ".xml")}
    assert planned("--openvino", "--half") == written
    clip = str(demo_clip())
    int8 = {f"{role}_int8.onnx" for role in ("frame", "prototypes", "temporal")}
    assert planned("--int8", "--calibration", clip) - planned() == int8
    assert planned("--openvino", "--int8", "--calibration", clip) - planned("--openvino") == int8 | {
        f"openvino/{role}_int8.xml" for role in ("frame", "prototypes", "temporal")}


def test_the_plan_names_no_int8_file_of_a_graph_that_stays_in_float(tmp_path: Path) -> None:
    _, output = export(demo_checkpoint(), "-o", tmp_path, "--dry-run", "--int8", "--calibration", demo_clip())
    told = [line for line in output.splitlines() if "computes in int8" in line]
    assert [line.split()[0] for line in told] == ["frame_int8.onnx", "prototypes_int8.onnx", "temporal_int8.onnx"]


def test_a_dry_run_refuses_what_the_export_would_refuse(tiny_checkpoint: Path, native_bundle: Path) -> None:
    code, output = export(tiny_checkpoint, "--dry-run", "-o", native_bundle)
    assert code == 4 and "give --overwrite" in output
    assert export(tiny_checkpoint, "--dry-run", "-o", native_bundle, "--overwrite")[0] == 0
    code, output = export(tiny_checkpoint, "--dry-run", "-o", tiny_checkpoint.parent, "--overwrite")
    assert code == 2 and "not a bundle" in output
    code, output = export(tiny_checkpoint, "--dry-run", "--int8", "--calibration", "nowhere.mp4")
    assert code == 2 and "nowhere.mp4 does not exist" in output


def test_anchor_ratios_of_kernels_that_do_not_show_them(tmp_path: Path) -> None:
    state = build_stmask(replace(TINY, kernel_shapes=((3, 3),) * 2, anchor_shapes=((3, 3),) * 2)).state_dict()
    torch.save(state, tmp_path / "two.pth")
    code, output = export(tmp_path / "two.pth", "--dry-run")
    assert code == 2 and "give them with --anchor-ratios" in output
    code, output = export(tmp_path / "two.pth", "--dry-run", "--anchor-ratios", "1,4")
    assert code == 0 and "3x3, 6x1.5 cells" in output


@pytest.mark.parametrize(("arguments", "message"), [
    (["{checkpoint}", "--openvino-weights", "f16"], "belongs to --openvino"),
    (["nowhere.pth"], "does not exist"),
    (["{checkpoint}", "--sha256", "00"], "expected 00"),
    (["{checkpoint}", "--input-size", "360"], "HEIGHTxWIDTH"),
    (["{checkpoint}", "--opset", "11", "-o", "{folder}/new"], "20, 21"),
    (["{checkpoint}", "--max-candidates", "0", "-o", "{folder}/new"], "--max-candidates"),
    (["{checkpoint}", "--candidate-threshold", "1", "-o", "{folder}/new"], "--candidate-threshold"),
    (["{checkpoint}", "--candidate-threshold", "nan", "-o", "{folder}/new"], "nan is not a number"),
    (["{checkpoint}", "--classes", "{folder}/two.txt"], "names 2 classes, the checkpoint has 3"),
    (["{checkpoint}", "--dcn", "fast"], "Invalid value"),
    (["{checkpoint}", "--tracking", "sort"], "known: released, paper, frame"),
    (["{checkpoint}", "--tracking", "released,alpha=1"], "alpha is not read by the released tracker"),
])
def test_bad_input_is_one_line_and_exit_code_2(tiny_checkpoint: Path, tmp_path: Path, arguments: list[str],
                                               message: str) -> None:
    (tmp_path / "two.txt").write_text("a\nb\n")
    code, output = export(*(one.format(checkpoint=tiny_checkpoint, folder=tmp_path) for one in arguments))
    assert code == 2
    assert message in output and "Traceback" not in output
    assert not (tmp_path / "new").exists()
