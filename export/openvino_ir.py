"""Conversion of an ONNX model to OpenVINO IR that loads without any extension."""
from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx.inliner

from stmask_deploy.bundle import weights_mark
from stmask_deploy.errors import InputError, OutputError
from stmask_deploy.openvino_library import import_openvino

if TYPE_CHECKING:
    import openvino


def require_openvino() -> Any:
    """The package `openvino`.

    Raises:
        InputError: it is not installed.
    """
    try:
        return import_openvino()
    except ImportError as error:
        raise InputError("writing OpenVINO IR needs the package openvino: pip install 'stmask-deploy[openvino]'"
                         ) from error


def to_openvino(model: onnx.ModelProto) -> openvino.Model:
    """Convert a model; its functions are expanded first, because OpenVINO's reader does not support them."""
    ov = require_openvino()
    from openvino.frontend.onnx import ConversionExtension

    core = ov.Core()
    core.add_extension(ConversionExtension("DeformConv", _convert_deform_conv))
    inlined = onnx.inliner.inline_local_functions(model)
    with tempfile.TemporaryDirectory() as folder:  # the reader only applies extensions to files
        path = Path(folder) / "model.onnx"
        onnx.save(inlined, path)
        return core.read_model(path)


def save_ir(model: openvino.Model, path: Path, half_weights: bool, info: Mapping[str, str], export_id: str) -> None:
    """Write `path` (.xml) and the .bin beside it.

    Args:
        model: an OpenVINO model, for instance from `to_openvino`; `info` is added to it.
        path: the .xml file.
        half_weights: store weights as float16 (computation stays in float32 unless the device is told otherwise).
        info: runtime information, readable as `model.get_rt_info(key)`.
        export_id: the bundle's export id, appended to the .bin as a mark.

    Raises:
        OutputError: a file cannot be written.
    """
    ov = require_openvino()
    for key, value in info.items():
        model.set_rt_info(value, key)
    try:
        ov.save_model(model, path, compress_to_fp16=half_weights)
        with open(path.with_suffix(".bin"), "ab") as file:
            file.write(weights_mark(export_id))
    except (RuntimeError, OSError) as error:  # OpenVINO raises RuntimeError without a reason
        raise OutputError(f"OpenVINO cannot write {path.name} and its weights; free some space or choose another folder"
                          ) from error


def _convert_deform_conv(node: Any) -> Any:
    """Convert ONNX DeformConv to OpenVINO's deformable convolution.

    OpenVINO's own importer leaves `bilinear_interpolation_pad` off, which makes samples at the border wrong by up to
    half of their range; ONNX and PyTorch interpolate against zeros beyond the border.
    """
    from openvino import opset8 as ops

    def attribute(name: str, default: list[int]) -> list[int]:
        return list(node.get_attribute(name, default))

    inputs = [node.get_input(i) for i in range(node.get_input_size())]
    x, weight, offset = inputs[:3]
    strides, dilations = attribute("strides", [1, 1]), attribute("dilations", [1, 1])
    pads = attribute("pads", [0, 0, 0, 0])
    mask = {"mask": inputs[4]} if len(inputs) > 4 else {}
    out = ops.deformable_convolution(
        x, offset, weight, strides, pads[:2], pads[2:], dilations, **mask, auto_pad="EXPLICIT",
        group=int(node.get_attribute("group", 1)), deformable_group=int(node.get_attribute("offset_group", 1)),
        bilinear_interpolation_pad=True)
    if len(inputs) > 3 and not _is_absent(inputs[3]):
        bias = ops.unsqueeze(inputs[3], ops.constant(np.array([0, 2, 3], np.int64)))
        out = ops.add(out, bias)
    return out.outputs()


def _is_absent(value: Any) -> bool:
    """Whether an optional ONNX input was left out."""
    return str(value.get_node().get_type_name()) == "NullNode"
