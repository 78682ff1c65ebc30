"""From ONNX to OpenVINO, against ONNX Runtime."""
from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_run import run

from stmask_deploy.bundle import weights_mark
from stmask_deploy.errors import OutputError
from stmask_deploy.export.openvino_ir import save_ir, to_openvino
from stmask_deploy.runtime.openvino_backend import shared_core

pytest.importorskip("openvino")


def deformable(size: tuple[int, int], kernel: tuple[int, int], offsets: tuple[int, int], *, group: int = 1,
               offset_group: int = 1, has_bias: bool = False, has_mask: bool = False, **attributes: Any
               ) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """A model of one DeformConv from 4 to 6 channels, with stored parameters, and inputs for it.

    Args:
        size: height and width of the map.
        kernel: height and width.
        offsets: height and width of the output.
        attributes: of the node.
    """
    rng = np.random.default_rng(0)
    taps = offset_group * kernel[0] * kernel[1]
    values = {"x": rng.standard_normal((2, 4, *size)), "offset": 3 * rng.standard_normal((2, 2 * taps, *offsets)),
              "mask": rng.uniform(size=(2, taps, *offsets))}
    stored = {"weight": rng.standard_normal((6, 4 // group, *kernel)), "bias": 5 + rng.standard_normal(6)}
    names = ["x", "weight", "offset", "bias" if has_bias else "", *["mask"] * has_mask]
    while not names[-1]:
        names.pop()
    if group > 1:
        attributes["group"] = group
    if offset_group > 1:
        attributes["offset_group"] = offset_group
    node = helper.make_node("DeformConv", names, ["y"], **attributes)
    feeds = {name: value.astype(np.float32) for name, value in values.items() if name in names}
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info(name, TensorProto.FLOAT, value.shape)
                      for name, value in feeds.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 6, *offsets])],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in stored.items() if name in names])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), feeds


PADDED = {"pads": [1, 0, 2, 1], "strides": [2, 1], "dilations": [1, 2]}


@pytest.mark.parametrize("model", [
    deformable((7, 9), (3, 3), (5, 7)),
    deformable((7, 9), (3, 3), (5, 7), has_bias=True),
    deformable((7, 9), (3, 3), (5, 7), has_mask=True),
    deformable((7, 9), (3, 3), (5, 7), has_bias=True, has_mask=True),
    deformable((8, 9), (3, 2), (5, 8), has_mask=True, **PADDED),
    deformable((8, 9), (3, 2), (5, 8), offset_group=2, has_bias=True, has_mask=True, **PADDED),
    deformable((7, 9), (3, 3), (5, 7), group=2),
], ids=["plain", "bias", "mask", "both", "padded", "offset groups", "groups"])
def test_deformable_convolution(model: tuple[onnx.ModelProto, dict[str, np.ndarray]]) -> None:
    graph, feeds = model
    expected = run(graph, feeds)["y"]
    compiled = shared_core().compile_model(to_openvino(graph), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(feeds)["y"]
    assert found.shape == expected.shape and np.ptp(expected) > 5
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("half", [True, False])
def test_files_carry_what_belongs_to_them(tmp_path: Path, half: bool) -> None:
    graph, feeds = deformable((7, 9), (3, 3), (5, 7), has_bias=True)
    save_ir(to_openvino(graph), tmp_path / "a.xml", half, {"one": "1 < 2", "other": "ü"}, "0123")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", "a.xml"]
    weights = (tmp_path / "a.bin").read_bytes()
    assert weights.endswith(weights_mark("0123"))
    bytes_each = 2 if half else 4
    assert 0 <= len(weights) - len(weights_mark("0123")) - bytes_each * (6 * 4 * 9 + 6) < 200  # shapes are stored too
    model = shared_core().read_model(tmp_path / "a.xml")
    assert [model.get_rt_info(key).astype(str) for key in ("one", "other")] == ["1 < 2", "ü"]
    found = shared_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(feeds)["y"]
    np.testing.assert_allclose(found, run(graph, feeds)["y"], atol=0.1 if half else 1e-4)


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    model = to_openvino(deformable((7, 9), (3, 3), (5, 7))[0])
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"a\.xml and its weights"):
        save_ir(model, tmp_path / "file" / "a.xml", False, {}, "0123")
