"""The project's operators in ONNX Runtime and OpenVINO against the PyTorch operators they stand for."""
from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from stmask_deploy.export.functions import DOMAIN
from stmask_deploy.export.lowering import Dcn, lower
from stmask_deploy.export.onnx_model import export_module
from stmask_deploy.export.openvino_ir import save_ir, to_openvino
from stmask_deploy.ops import correlation, deform_conv2d, roi_align
from stmask_deploy.runtime.openvino_backend import shared_core


class Case(NamedTuple):
    """One deformable convolution."""

    kernel: tuple[int, int]
    stride: int
    size: tuple[int, int]
    modulated: bool


CASES = (
    Case((3, 3), 1, (6, 7), True),
    Case((3, 3), 2, (6, 8), True),  # even map: the last row is not reached
    Case((3, 3), 2, (7, 5), True),  # odd map: padding on both sides
    Case((3, 5), 1, (5, 6), False),
    Case((5, 3), 1, (5, 6), False),
    Case((3, 2), 1, (5, 6), False),  # even side: padded on the left only
    Case((2, 3), 1, (5, 6), False),
)


class DeformConvs(nn.Module):
    """All cases side by side, so that one export serves them."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weights = nn.ParameterList(torch.randn((4, 3, *case.kernel), generator=generator) for case in CASES)
        self.bias = nn.Parameter(torch.randn(4, generator=generator))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = []
        rest = list(inputs)
        for case, weight in zip(CASES, self.weights, strict=True):
            x, offset = rest.pop(0), rest.pop(0)
            mask, bias = (rest.pop(0), self.bias) if case.modulated else (None, None)
            outputs.append(deform_conv2d(x, weight, offset, mask, bias, [case.stride] * 2,
                                         [case.kernel[0] // 2, case.kernel[1] // 2]))
        return tuple(outputs)


def deform_conv_inputs() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = {}
    for index, case in enumerate(CASES):
        taps = case.kernel[0] * case.kernel[1]
        out = [-(-side // case.stride) for side in case.size]
        inputs[f"x{index}"] = torch.randn((1, 3, *case.size), generator=generator)
        # Many samples leave the map.
        inputs[f"offset{index}"] = 2.5 * torch.randn((1, 2 * taps, *out), generator=generator)
        if case.modulated:
            inputs[f"mask{index}"] = torch.rand((1, taps, *out), generator=generator)
    return inputs


class Correlation(nn.Module):
    def __init__(self, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size

    def forward(self, prev: Tensor, cur: Tensor) -> Tensor:
        out: Tensor = correlation(prev, cur, self.patch_size)
        return out


class RoiAlign(nn.Module):
    def forward(self, features: Tensor, boxes: Tensor) -> Tensor:
        out: Tensor = roi_align(features, boxes, 4)
        return out


def run_everywhere(model: onnx.ModelProto, feeds: dict[str, np.ndarray], folder: Path
                   ) -> dict[str, list[np.ndarray]]:
    """Outputs by runtime. The IR is read by a core without extensions."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    save_ir(to_openvino(model), folder / "model.xml", half_weights=False, info={}, export_id="")
    core = shared_core()
    compiled = core.compile_model(core.read_model(folder / "model.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    outputs = compiled(feeds)
    return {"onnxruntime": list(session.run(None, feeds)),
            "openvino": [outputs[info.name].copy() for info in model.graph.output]}


@pytest.mark.parametrize("dcn", list(Dcn))
def test_deform_conv(dcn: Dcn, tmp_path: Path) -> None:
    traced = deform_conv_inputs()
    fresh = {name: value.flip(-1).contiguous() for name, value in traced.items()}  # not what was traced
    module = DeformConvs().eval()
    with torch.no_grad():
        model = export_module(module, list(traced.values()), list(traced), [f"y{i}" for i in range(len(CASES))],
                              dcn=dcn)
        expected = [value.numpy() for value in module(*fresh.values())]
    standard = {node.op_type for node in model.graph.node if not node.domain}
    assert ("DeformConv" in standard) == (dcn is Dcn.NATIVE)
    results = run_everywhere(model, {name: value.numpy() for name, value in fresh.items()}, tmp_path)
    for runtime, found in results.items():
        for case, want, have in zip(CASES, expected, found, strict=True):
            np.testing.assert_allclose(have, want, atol=2e-5, rtol=1e-5, err_msg=f"{runtime} {case}")
    if dcn is Dcn.GRIDSAMPLE:  # named nodes with bodies of standard operators
        named = [node.op_type for node in model.graph.node if node.domain == DOMAIN]
        assert sorted(named) == ["DeformConv"] * 4 + ["ModulatedDeformConv"] * 3
        bodies = {function.name: function for function in model.functions}
        assert set(bodies) == {"DeformConv", "ModulatedDeformConv", "SampleTaps"}
        assert "GridSample" in {node.op_type for node in bodies["SampleTaps"].node}


@pytest.mark.parametrize(("nodes", "initializers"), [
    ("", "<int64[2] strides = {2, 1}, int64[2] begins = {1, 2}>"),
    ("strides = Constant <value_ints = [2, 1]> ()  begins = Constant <value = int64[2] {1, 2}> ()", ""),
], ids=["initializers", "nodes"])
def test_strides_and_padding_as_either_kind_of_constant(nodes: str, initializers: str) -> None:
    model = onnx.parser.parse_model(f"""
        <ir_version: 10, opset_import: ["" : 20, "{DOMAIN}" : 1]>
        graph (float[1, 1, 5, 6] x, float[1, 1, 3, 5] weight, float[1, 30, 3, 6] offset) => (float[1, 1, 3, 6] y)
        {initializers} {{ {nodes} size = Constant <value_float = 2.0> ()
                          y = {DOMAIN}.DeformConv (x, weight, offset, strides, begins) }}""")
    lower(model, Dcn.NATIVE)
    node = model.graph.node[-1]
    assert (node.op_type, node.domain) == ("DeformConv", "")
    given = {attribute.name: list(attribute.ints) for attribute in node.attribute}
    assert given == {"kernel_shape": [3, 5], "strides": [2, 1], "pads": [1, 2, 1, 2]}


@pytest.mark.parametrize(("patch_size", "size"), [(1, (3, 4)), (3, (4, 5)), (5, (2, 3))])  # last: wider than the map
def test_correlation(patch_size: int, size: tuple[int, int], tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(2)
    prev, cur = (torch.randn((1, 6, *size), generator=generator) for _ in range(2))
    with torch.no_grad():
        model = export_module(Correlation(patch_size).eval(), [cur, prev], ["prev", "cur"], ["y"])
        expected = correlation(prev, cur, patch_size).numpy()
    assert [node.op_type for node in model.graph.node] == ["Correlation"]
    for runtime, found in run_everywhere(model, {"prev": prev.numpy(), "cur": cur.numpy()}, tmp_path).items():
        np.testing.assert_allclose(found[0], expected, atol=1e-6, err_msg=runtime)


def test_roi_align(tmp_path: Path) -> None:
    features = torch.randn((1, 2, 6, 9), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        model = export_module(RoiAlign().eval(), [features, torch.rand(3, 4)], ["features", "boxes"], ["y"],
                              dynamic={"boxes": {0: "N"}})
    for boxes in (
        [],
        [[0.0, 0.0, 9.0, 6.0], [1.2, 0.3, 3.9, 5.5], [8.0, 5.0, 9.0, 6.0]],
        [[2.0, 1.0, 2.0, 4.0], [0.0, 0.0, 0.0, 0.0], [1.0, 3.0, 5.0, 3.0]],  # no area: zeros, not NaN
    ):
        rois = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        expected = roi_align(features, rois, 4).numpy()
        feeds = {"features": features.numpy(), "boxes": rois.numpy()}
        for runtime, found in run_everywhere(model, feeds, tmp_path).items():
            np.testing.assert_allclose(found[0], expected, atol=1e-5, err_msg=f"{runtime} {boxes}")
