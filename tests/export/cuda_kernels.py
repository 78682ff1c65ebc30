"""Which operators ONNX Runtime has CUDA kernels for, as far as this project's graphs need them, and which copy tables.

From the CUDA section of docs/OperatorKernels.md of microsoft/onnxruntime at 001d12d2623fd411ce0f83d05abb5e82304a3389.
That file is older than DeformConv (opset 19 on, in f32 and f16: pull request 27393, released with 1.25) and RoiAlign
of opset 16 on (27646). Resize of opset 19 came with 27415. An operator that is not listed would be computed on the
host, with copies to and fro.
"""
from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import TensorProto

F32, F16, BF16, I64, BOOL, U8 = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.INT64,
                                 TensorProto.BOOL, TensorProto.UINT8)
_ANY = {F32, F16, I64, BOOL, U8}
_FLOATS = {F32, F16}
_NUMBERS = {F32, F16, I64}

# Operator -> types of the first input that have a kernel, for opset 20 and 21.
CUDA_KERNELS: dict[str, set[int]] = {
    "Add": _NUMBERS, "BatchNormalization": _FLOATS, "Cast": _ANY | {BF16}, "Clip": _NUMBERS | {U8}, "Concat": _ANY,
    "Conv": _FLOATS, "DeformConv": _FLOATS, "Div": _NUMBERS, "Equal": {F32, F16, I64, BOOL}, "Exp": _FLOATS,
    "Expand": _ANY, "Gather": _ANY, "GatherND": {F32, F16, I64, BOOL},
    "GatherElements": _ANY, "Gemm": _FLOATS, "Greater": _NUMBERS, "GreaterOrEqual": _NUMBERS, "GridSample": {F32},
    "Identity": _ANY, "LeakyRelu": _FLOATS, "Less": _NUMBERS, "MatMul": _FLOATS, "Max": _NUMBERS, "MaxPool": _FLOATS,
    "Min": _NUMBERS, "Mod": _NUMBERS, "Mul": _NUMBERS, "ReduceL2": _FLOATS, "ReduceMax": _NUMBERS,
    "ReduceMean": _FLOATS, "ReduceMin": _NUMBERS, "ReduceSum": _NUMBERS, "Relu": _FLOATS, "Reshape": _ANY,
    "Resize": _FLOATS, "RoiAlign": {F32}, "Sigmoid": _FLOATS, "Slice": _ANY, "Softmax": _FLOATS, "Split": _ANY,
    "Squeeze": _ANY, "Sub": _NUMBERS, "Tanh": _FLOATS, "TopK": _NUMBERS, "Transpose": _ANY, "Unsqueeze": _ANY,
    "Where": {F32, F16, I64, U8}, "And": {BOOL}, "Floor": _FLOATS, "Not": {BOOL}}


def without_kernel(model: onnx.ModelProto) -> Iterator[str]:
    """Nodes of `model`, with inferred types, that CUDA has no kernel for: operator, type and name."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {info.name: info.type.tensor_type.elem_type
             for info in (*inferred.input, *inferred.value_info, *inferred.output)}
    types |= {one.name: one.data_type for one in inferred.initializer}
    for node in inferred.node:
        operand = node.input[1] if node.op_type == "Where" else node.input[0]
        if node.domain or types[operand] not in CUDA_KERNELS.get(node.op_type, ()):
            yield f"{node.domain}{node.op_type} of {TensorProto.DataType.Name(types[operand])} ({node.name})"


def with_tables(model: onnx.ModelProto) -> Iterator[str]:
    """Nodes of `model`, with inferred shapes, for which CUDA copies tables from the host in every run: name and sizes.

    These are Splits into unequal parts, and Concats of more than 32 unequal parts (kernels of ONNX Runtime 1.31 that
    take pointers to tables, not tables).
    """
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    shapes = {info.name: [size.dim_value for size in info.type.tensor_type.shape.dim]
              for info in (*inferred.input, *inferred.value_info, *inferred.output)}
    shapes |= {one.name: list(one.dims) for one in inferred.initializer}
    for node in inferred.node:
        parts = {"Split": node.output, "Concat": node.input if len(node.input) > 32 else ()}.get(node.op_type, ())
        sizes = [shapes[name] for name in parts]
        if any(one != sizes[0] for one in sizes):
            yield f"{node.name} {sizes}"
