from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tiny_networks import changed_copy

from stmask_deploy.bundle import read_description
from stmask_deploy.export.openvino_ir import save_ir
from stmask_deploy.export.verify import verify_bundle
from stmask_deploy.geometry import level_sizes
from stmask_deploy.models.checkpoint import Checkpoint


@pytest.mark.parametrize(("role", "weight", "output"), [
    ("frame", "proto_net.10.weight", "frame/prototypes"),
    ("frame", "bbox_layer.0.bias", "frame/boxes"),
    ("prototypes", "proto_net.0.weight", "prototypes/prototypes"),
    ("temporal", "fc.weight", "temporal/box_deltas"),
])
def test_a_wrong_weight_is_found_and_named(native_bundle: Path, tiny: Checkpoint, tmp_path: Path, role: str,
                                           weight: str, output: str) -> None:
    folder = changed_copy(native_bundle, tmp_path / "bundle", role, 0.5, weight)
    verification = verify_bundle(folder, tiny.build())
    assert not verification.passed
    assert output in verification.summary()


def test_frames_of_ones_own(native_bundle: Path, tiny: Checkpoint) -> None:
    frames = [np.full((50, 40, 3), value, np.uint8) for value in (0, 90)]
    verification = verify_bundle(native_bundle, tiny.build(), frames=frames)
    assert verification.passed, verification.summary()
    assert {check.backend for check in verification.checks} == {"onnxruntime", "openvino"}


def test_half_weights_are_judged_by_their_own_tolerance(gridsample_bundle: Path) -> None:
    reached = read_description(gridsample_bundle).tolerances
    assert reached["onnxruntime"] < 1e-4 < reached["openvino"] < 5e-2


def edited_copy(bundle: Path, folder: Path, name: str, edit: Callable[[onnx.GraphProto], None]) -> Path:
    """A bundle without IR, whose graph `name` is edited."""
    shutil.copytree(bundle, folder, ignore=shutil.ignore_patterns("openvino"))
    description = replace(read_description(folder), openvino_weights=None)
    (folder / "stmask.json").write_text(description.to_json(), encoding="utf-8")
    model = onnx.load(folder / name)
    edit(model.graph)
    onnx.save(model, folder / name)
    return folder


@pytest.mark.parametrize("level", range(5))
def test_no_level_is_left_out(native_bundle: Path, tiny: Checkpoint, tmp_path: Path, level: int) -> None:
    """Anchors of one level alone are moved: candidates may lie on others."""
    config = tiny.config
    sizes = [height * width * config.anchors_per_cell
             for height, width in level_sizes(config.padded_size, config.num_levels)]

    def move(graph: onnx.GraphProto) -> None:
        [anchors] = [one for one in graph.initializer if list(one.dims) == [sum(sizes), 4]]
        values = numpy_helper.to_array(anchors).copy()
        start = sum(sizes[:level])
        values[start:start + sizes[level], 0] += 0.3
        anchors.CopyFrom(numpy_helper.from_array(values, anchors.name))

    folder = edited_copy(native_bundle, tmp_path / "bundle", "frame.onnx", move)
    verification = verify_bundle(folder, tiny.build())
    assert not verification.passed and "levels/boxes" in verification.summary()


def test_values_that_are_no_numbers_on_the_last_level(native_bundle: Path, tiny: Checkpoint, tmp_path: Path) -> None:
    def spoil(graph: onnx.GraphProto) -> None:
        [anchors] = [one for one in graph.initializer if len(one.dims) == 2 and one.dims[1] == 4 and one.dims[0] > 100]
        values = numpy_helper.to_array(anchors).copy()
        values[-1] = np.nan
        anchors.CopyFrom(numpy_helper.from_array(values, anchors.name))

    verification = verify_bundle(edited_copy(native_bundle, tmp_path / "bundle", "frame.onnx", spoil), tiny.build())
    assert not verification.passed and "levels/boxes (error nan)" in verification.summary()


def test_levels_of_an_ir_count_too(native_bundle: Path, tiny: Checkpoint, tmp_path: Path) -> None:
    import openvino

    shutil.copytree(native_bundle, tmp_path / "bundle")
    path = tmp_path / "bundle" / "openvino" / "frame.xml"
    model = openvino.Core().read_model(path)
    [anchors] = [node for node in model.get_ordered_ops() if node.get_type_name() == "Constant"
                 and len(node.get_output_shape(0)) == 2 and node.get_output_shape(0)[1] == 4
                 and node.get_output_shape(0)[0] > 100]
    values = np.array(anchors.data)
    values[-1, 0] += 0.3
    replacement = openvino.opset13.constant(values)
    for reader in anchors.output(0).get_target_inputs():
        reader.replace_source_output(replacement.output(0))
    save_ir(model, tmp_path / "new.xml", False, {}, read_description(native_bundle).export_id)
    for suffix in (".xml", ".bin"):
        shutil.move(tmp_path / f"new{suffix}", path.with_suffix(suffix))
    verification = verify_bundle(tmp_path / "bundle", tiny.build())
    assert [check.output for check in verification.checks if not check.passed and check.backend == "openvino"] == [
        "levels/boxes"]


@pytest.mark.parametrize("sign", [-1, 1])
def test_rows_that_belong_to_no_anchor(native_bundle: Path, tiny: Checkpoint, tmp_path: Path, sign: int) -> None:
    def shift(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            for i, name in enumerate(node.output):
                if name == "anchor_index":
                    node.output[i] = "own_index"
            for i, name in enumerate(node.input):
                if name == "anchor_index":
                    node.input[i] = "own_index"
        graph.initializer.append(numpy_helper.from_array(np.array(sign * 10**6), "much"))
        graph.node.append(onnx.helper.make_node("Add", ["own_index", "much"], ["anchor_index"]))

    folder = edited_copy(native_bundle, tmp_path / "bundle", "frame.onnx", shift)
    verification = verify_bundle(folder, tiny.build())
    assert not verification.passed
    assert "frame/anchor_index (rows of no anchor, or one twice)" in verification.summary()
