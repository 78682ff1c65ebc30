"""No level of the pyramid is left out, wherever the candidates of the pictures lie."""
from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tiny_networks import edited_copy

from stmask_deploy.bundle import read_description
from stmask_deploy.export.openvino_ir import save_ir
from stmask_deploy.export.verify import verify_bundle
from stmask_deploy.models.checkpoint import Checkpoint


@pytest.mark.parametrize("level", range(5))
def test_no_level_is_left_out(native_bundle: Path, tiny: Checkpoint, tmp_path: Path, level: int) -> None:
    """Anchors of one level alone are moved: candidates may lie on others."""
    sizes = [height * width * tiny.config.anchors_per_cell for height, width in tiny.config.level_sizes]

    def move(graph: onnx.GraphProto) -> None:
        [anchors] = [one for one in graph.initializer if list(one.dims) == [sum(sizes), 4]]
        values = numpy_helper.to_array(anchors).copy()
        start = sum(sizes[:level])
        values[start:start + sizes[level], 0] += 0.3
        anchors.CopyFrom(numpy_helper.from_array(values, anchors.name))

    folder = edited_copy(native_bundle, tmp_path / "bundle", "frame.onnx", move)
    verification = verify_bundle(folder, tiny.build())
    assert not verification.passed and "levels/boxes" in verification.summary()
    [check] = [one for one in verification.checks if one.output == "levels/boxes"]
    assert check.error == pytest.approx(0.03015, rel=1e-3)  # of each level, however few anchors it has


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
