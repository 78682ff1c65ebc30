from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import openvino
import pytest
import torch
from tiny_networks import TINY, write_checkpoint

from stmask_deploy.bundle import METADATA_KEY, BundleDescription, read_description
from stmask_deploy.config import Calibration, ModelConfig
from stmask_deploy.errors import InputError, OutputError, StmaskError
from stmask_deploy.export.exporter import ExportOptions, export_checkpoint, metadata
from stmask_deploy.export.openvino_ir import save_ir
from stmask_deploy.models.checkpoint import Checkpoint, load_checkpoint
from stmask_deploy.pretrained import demo_bundle
from stmask_deploy.runtime.loading import open_bundle
from stmask_deploy.runtime.model import load
from stmask_deploy.tracking_config import TrackingConfig


def test_a_run_takes_the_tracking_that_was_exported(gridsample_bundle: Path) -> None:
    assert read_description(gridsample_bundle).model.tracking == TrackingConfig("paper", alpha=4.0, epsilon=1.6)
    tracking = load(gridsample_bundle, threads=1).options.tracking
    assert str(tracking) == "paper,alpha=4,beta=1,epsilon=1.6,embedding_momentum=0,max_cover=1"


def test_the_bundle_holds_everything_and_opens_on_both_backends(native_bundle: Path) -> None:
    names = {path.relative_to(native_bundle).as_posix() for path in native_bundle.rglob("*") if path.is_file()}
    assert names == {"stmask.json", "export_report.json", *(
        form.format(role) for role in ("frame", "prototypes", "temporal")
        for form in ("{}.onnx", "openvino/{}.xml", "openvino/{}.bin"))}
    for backend in ("onnxruntime", "openvino"):
        assert open_bundle(native_bundle, backend, device="cpu").temporal is not None


def test_every_graph_carries_the_same_description(native_bundle: Path) -> None:
    description = read_description(native_bundle)
    assert description.model == TINY
    assert set(description.tolerances) == {"onnxruntime", "openvino"}
    core = openvino.Core()
    for role in ("frame", "prototypes", "temporal"):
        props = {prop.key: prop.value for prop in onnx.load(native_bundle / f"{role}.onnx").metadata_props}
        info = core.read_model(native_bundle / f"openvino/{role}.xml").get_rt_info(METADATA_KEY).astype(str)
        for text in (props[METADATA_KEY], info):
            assert BundleDescription.from_json(text, role) == description
        assert props["stmask.role"] == role


def test_names_in_the_metadata_are_by_class_id() -> None:
    description = read_description(demo_bundle())
    names = json.loads(metadata(description, "frame")["names"])
    assert list(names.items()) == [("1", "fish"), ("2", "star"), ("3", "heart"), ("4", "moon"), ("5", "cross"),
                                   ("6", "triangle")]


def test_the_report_says_what_was_compared(native_bundle: Path) -> None:
    report = json.loads((native_bundle / "export_report.json").read_text())
    assert report["verification"]["passed"]
    outputs = {(check["backend"], check["output"]) for check in report["verification"]["checks"]}
    assert ("openvino", "temporal/box_deltas") in outputs and ("onnxruntime", "frame/anchor_index") in outputs
    # 2 in the backbone; 2 calibrated branches x 3 kernels x 5 levels
    assert report["operators"]["frame"]["DeformConv"] == 32
    assert report["operators"]["temporal"]["stmask::Correlation"] == 1


def test_gridsample_bundles_need_no_deform_conv(gridsample_bundle: Path) -> None:
    model = onnx.load(gridsample_bundle / "frame.onnx")
    assert not any(node.op_type == "DeformConv" and node.domain == "" for node in model.graph.node)
    assert read_description(gridsample_bundle).dcn == "gridsample"


def test_no_graph_normalises_behind_a_convolution(native_bundle: Path, gridsample_bundle: Path) -> None:
    for folder in (native_bundle, gridsample_bundle):
        for path in folder.glob("*.onnx"):
            assert "BatchNormalization" not in {node.op_type for node in onnx.load(path).graph.node}, path


def test_half_weights_are_half_as_large(native_bundle: Path, gridsample_bundle: Path) -> None:
    full, half = ((folder / "openvino/temporal.bin").stat().st_size for folder in (native_bundle, gridsample_bundle))
    assert half < 0.6 * full


def test_a_network_without_temporal_fusion_has_one_graph(tmp_path: Path) -> None:
    config: ModelConfig = replace(
        TINY, temporal=None, kernel_shapes=((3, 3), (3, 2), (2, 3)), anchor_shapes=((3, 3), (3, 2), (2, 3)),
        anchor_scales=(1.0, 1.5, 2.0), class_calibration=Calibration.NONE, mask_calibration=Calibration.NONE,
        deformable_blocks=())
    checkpoint = load_checkpoint(write_checkpoint(tmp_path / "image.pth", config))
    folder = tmp_path / "bundle"
    assert export_checkpoint(checkpoint, folder, ExportOptions(max_candidates=10**6)).passed
    assert not (folder / "temporal.onnx").exists()
    opened = open_bundle(folder, device="cpu")
    assert opened.temporal is None and "fpn" not in opened.frame.outputs
    assert opened.description.max_candidates == 9 * (12 * 16 + 6 * 8 + 3 * 4 + 2 * 2 + 1 * 1)  # all anchors, no more


def test_a_bundle_is_not_replaced_unasked(native_bundle: Path, tiny: Checkpoint) -> None:
    before = (native_bundle / "stmask.json").read_bytes()
    with pytest.raises(OutputError, match="--overwrite"):
        export_checkpoint(tiny, native_bundle, ExportOptions())
    assert (native_bundle / "stmask.json").read_bytes() == before


def test_a_folder_that_is_no_bundle_is_never_replaced(tiny: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("keep")
    with pytest.raises(InputError, match="not a bundle"):
        export_checkpoint(tiny, tmp_path, ExportOptions(), overwrite=True)
    assert (tmp_path / "precious.txt").read_text() == "keep"


def test_a_mismatch_fails_and_leaves_the_old_bundle_and_no_scraps(native_bundle: Path, tmp_path: Path) -> None:
    # Without deformable convolutions, which take most of the time to trace.
    config = replace(TINY, class_calibration=Calibration.NONE, mask_calibration=Calibration.NONE, deformable_blocks=(),
                     kernel_shapes=((3, 3),), anchor_shapes=((3, 3),))
    (tmp_path / "elsewhere").mkdir()
    checkpoint = load_checkpoint(write_checkpoint(tmp_path / "elsewhere" / "small.pth", config))
    folder = tmp_path / "here" / "bundle"
    shutil.copytree(native_bundle, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(StmaskError, match="do not match PyTorch") as caught:
        export_checkpoint(checkpoint, folder, ExportOptions(tolerance=0.0, simplify=False), overwrite=True)
    assert "frame/boxes" in str(caught.value) and "temporal/coeff_deltas" in str(caught.value)  # all misses together
    assert caught.value.exit_code == 1
    assert {path: path.read_bytes() for path in folder.parent.rglob("*") if path.is_file()} == before


def test_an_unwritable_place_is_an_output_error(tiny: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file is a file and cannot be the output folder"):
        export_checkpoint(tiny, tmp_path / "file" / "bundle", ExportOptions())


@pytest.mark.parametrize("values", [{"max_candidates": 0}, {"candidate_threshold": 1.0}, {"candidate_threshold": -0.1},
                                    {"candidate_threshold": float("nan")}])
def test_options_out_of_range(tiny: Checkpoint, tmp_path: Path, values: dict[str, float]) -> None:
    with pytest.raises(InputError, match="max_candidates must be at least 1 and candidate_threshold in .0, 1., got"):
        export_checkpoint(tiny, tmp_path / "bundle", ExportOptions(**values))  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("opset", [19, 22])
def test_another_opset_names_the_supported_ones(opset: int) -> None:
    with pytest.raises(InputError, match=f"opset {opset} is not supported; choose one of 20, 21"):
        ExportOptions(opset=opset)


@pytest.mark.parametrize(("package", "weights"), [("onnxruntime", None), ("openvino", "f32")])
def test_a_missing_library_is_named_before_anything_is_written(
        tiny: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, weights: str | None) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match="pip install 'stmask-deploy"):
        export_checkpoint(tiny, tmp_path / "bundle", ExportOptions(openvino_weights=weights))
    assert not list(tmp_path.iterdir())


def test_values_that_are_not_numbers_are_the_checkpoints_fault(tiny: Checkpoint, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    state = {name: -torch.ones_like(value) if name == "backbone.bn1.running_var" else value
             for name, value in tiny.state.items()}
    monkeypatch.setattr("stmask_deploy.export.exporter.export_graph", lambda *_: onnx.ModelProto())  # it is not reached
    with pytest.raises(InputError, match="tiny.pth: the network gives values that are not numbers"):
        export_checkpoint(replace(tiny, state=state), tmp_path / "bundle", ExportOptions(max_candidates=60))
    assert not list(tmp_path.iterdir())


def test_a_reader_that_goes_away_is_no_error_of_the_disk(tiny: Checkpoint, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_line: str) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("stmask_deploy.export.exporter.export_graph", lambda *_: onnx.ModelProto())
    with pytest.raises(BrokenPipeError):
        export_checkpoint(tiny, tmp_path / "bundle", ExportOptions(), say=gone)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_under_an_ir(native_bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "frame.bin").symlink_to("/dev/full")
    with pytest.raises(OutputError, match="cannot write frame.xml"):
        save_ir(openvino.Core().read_model(native_bundle / "openvino/frame.xml"), tmp_path / "frame.xml", False, {},
                "0123")
