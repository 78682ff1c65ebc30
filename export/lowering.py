"""Conversion of the model's custom operators to ONNX: translation during the export, then a choice of bodies."""
# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any

import onnx
import torch
from onnx import helper
from onnxscript import opset18 as op

import stmask_deploy.ops  # noqa: F401  (registers torch.ops.stmask)

from .functions import DOMAIN, FUNCTIONS, VERSION, operator

_CORRELATION = operator("Correlation", ("prev", "cur"), attributes=("patch_size",))
_DEFORM_CONV = operator("DeformConv", ("x", "weight", "offset"), ("strides", "pads"))
_MODULATED = operator("ModulatedDeformConv", ("x", "weight", "offset", "mask", "bias"), ("strides", "pads"))


class Dcn(str, Enum):
    """How deformable convolution is written."""

    NATIVE = "native"  # ONNX DeformConv: ONNX Runtime >= 1.25; OpenVINO through the exporter's IR
    GRIDSAMPLE = "gridsample"  # GridSample and a 1x1 convolution: any runtime with opset 20


def _correlation(prev: Any, cur: Any, patch_size: int) -> Any:
    return _CORRELATION(prev, cur, patch_size=patch_size)


def _deform_conv2d(x: Any, weight: Any, offset: Any, mask: Any, bias: Any, stride: list[int],
                   padding: list[int]) -> Any:
    strides, pads = op.Constant(value_ints=list(stride)), op.Constant(value_ints=list(padding))
    if mask is None:
        if bias is not None:
            raise NotImplementedError("deformable convolution with a bias but no mask")
        return _DEFORM_CONV(x, weight, offset, strides, pads)
    return _MODULATED(x, weight, offset, mask, bias, strides, pads)


def _roi_align(features: Any, boxes: Any, size: int) -> Any:
    index = op.Expand(op.Constant(value_int=0), op.Shape(boxes, start=0, end=1))
    pooled = op.RoiAlign(features, boxes, index, output_height=size, output_width=size, sampling_ratio=0,
                         spatial_scale=1.0, coordinate_transformation_mode="half_pixel")
    # Boxes without area have no samples: ONNX Runtime returns zero, but OpenVINO 0/0.
    sides = op.Slice(boxes, op.Constant(value_ints=[2]), op.Constant(value_ints=[4]), op.Constant(value_ints=[1]))
    corner = op.Slice(boxes, op.Constant(value_ints=[0]), op.Constant(value_ints=[2]), op.Constant(value_ints=[1]))
    extent = op.ReduceMin(op.Sub(sides, corner), op.Constant(value_ints=[1]), keepdims=1)  # (N, 1)
    has_area = op.Unsqueeze(op.Greater(extent, op.Constant(value_float=0.0)), op.Constant(value_ints=[2, 3]))
    return op.Where(has_area, pooled, op.Constant(value_float=0.0))


def translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Table of the model's operators for `torch.onnx.export(custom_translation_table=...)`.

    Correlation and deformable convolution become one node each, RoIAlign becomes standard operators.
    """
    ops = torch.ops.stmask
    return {ops.correlation.default: _correlation, ops.deform_conv2d.default: _deform_conv2d,
            ops.roi_align.default: _roi_align}


def lower(model: onnx.ModelProto, dcn: Dcn) -> None:
    """Give every node of the project's domain an implementation, in place.

    Correlation keeps its node and gets a function body. Deformable convolution becomes the standard `DeformConv`, or
    keeps its node and gets a body of standard operators.
    """
    if dcn is Dcn.NATIVE:
        _to_native(model)
    used = {node.op_type for node in model.graph.node if node.domain == DOMAIN}
    if used & {"DeformConv", "ModulatedDeformConv"}:
        used.add("SampleTaps")
    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    functions = [FUNCTIONS[name].to_function_proto() for name in sorted(used)]
    for function in functions:
        for entry in function.opset_import:
            if entry.domain == "":
                entry.version = opset
    model.functions.extend(functions)
    domains = {entry.domain for entry in model.opset_import}
    if used and DOMAIN not in domains:
        model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))
    if not used:
        kept = [entry for entry in model.opset_import if entry.domain != DOMAIN]
        del model.opset_import[:]
        model.opset_import.extend(kept)


def _to_native(model: onnx.ModelProto) -> None:
    shapes = _static_shapes(model)
    constants = _integer_constants(model)
    for node in model.graph.node:
        if node.domain != DOMAIN or node.op_type not in ("DeformConv", "ModulatedDeformConv"):
            continue
        x, weight, offset = node.input[:3]
        strides, begins = constants[node.input[-2]], constants[node.input[-1]]
        kernel = shapes[weight][2:]
        # End padding: how far the last taps reach beyond the map; in strided layers they may not reach its end.
        ends = [max((out - 1) * stride + size - length - begin, 0) for out, stride, size, length, begin
                in zip(shapes[offset][2:], strides, kernel, shapes[x][2:], begins, strict=True)]
        mask, bias = (node.input[3], node.input[4]) if node.op_type == "ModulatedDeformConv" else ("", "")
        native = helper.make_node("DeformConv", [x, weight, offset, *([bias, mask] if mask else [])], node.output,
                                  name=node.name, kernel_shape=kernel, strides=strides, pads=[*begins, *ends])
        node.CopyFrom(native)


def _static_shapes(model: onnx.ModelProto) -> dict[str, list[int]]:
    shapes = {one.name: list(one.dims) for one in model.graph.initializer}
    for info in (*model.graph.input, *model.graph.value_info, *model.graph.output):
        shapes[info.name] = [size.dim_value for size in info.type.tensor_type.shape.dim]
    return shapes


def _integer_constants(model: onnx.ModelProto) -> dict[str, list[int]]:
    """Of initializers and of nodes: releases of onnxscript differ in which they write."""
    tensors = {one.name: one for one in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type == "Constant":
            value = helper.get_attribute_value(node.attribute[0])
            if isinstance(value, onnx.TensorProto):
                tensors[node.output[0]] = value
            elif node.attribute[0].type == onnx.AttributeProto.INTS:
                found[node.output[0]] = list(value)
    found.update((name, onnx.numpy_helper.to_array(tensor).tolist()) for name, tensor in tensors.items()
                 if tensor.data_type == onnx.TensorProto.INT64)
    return found
