"""The project's ONNX operators (domain `stmask`) as functions of standard operators.

Each is a single node in a graph; a runtime that knows the operator may use its own kernel, others expand the body.
The functions are written in onnxscript, a Python subset that is compiled instead of executed: variables are tensors.
"""
# mypy: ignore-errors
# ruff: noqa: N802  (operators are named as ONNX names them)
from __future__ import annotations

from onnx.defs import OpSchema
from onnxscript import opset20 as op
from onnxscript import script, values

DOMAIN = "stmask"
VERSION = 1
STMASK = values.Opset(DOMAIN, VERSION)


@script(STMASK, default_opset=op)
def Correlation(prev, cur, patch_size: int):
    """Mean over channels of `prev` at each cell times `cur` at the cells of the window around it.

    One matrix product computes all products, and each cell gathers the patch_size^2 it needs: 7 to 15 times faster than
    one slice and product per displacement.
    """
    channels = op.Shape(prev, start=1, end=2)
    height = op.Shape(prev, start=2, end=3)
    width = op.Shape(prev, start=3, end=4)
    cells = height * width
    one = op.Constant(value_ints=[1])
    d = op.Reshape(op.Constant(value_int=patch_size), one)
    # (1, cells, cells): rows are cells of prev, columns cells of cur
    flat = op.Concat(one, channels, cells, axis=0)
    products = op.MatMul(op.Transpose(op.Reshape(prev, flat), perm=[0, 2, 1]), op.Reshape(cur, flat))
    products = products / op.CastLike(channels, prev)
    # Row and column of each cell, and of each displacement from -(d // 2).
    minus_one = op.Constant(value_ints=[-1])
    zero = op.Constant(value_int=0)
    step = op.Constant(value_int=1)
    cell = op.Range(zero, op.Squeeze(cells), step)
    cell_y = op.Unsqueeze(cell / width, minus_one)
    cell_x = op.Unsqueeze(op.Mod(cell, width), minus_one)
    move = op.Range(zero, op.Squeeze(d * d), step)
    y = cell_y + (move / d - d / 2)  # (cells, d*d)
    x = cell_x + (op.Mod(move, d) - d / 2)
    nought = op.Constant(value_ints=[0])
    inside = op.And(op.And(y >= nought, y < height), op.And(x >= nought, x < width))
    target = op.Where(inside, y * width + x, nought)
    window = op.GatherElements(products, op.Unsqueeze(target, nought), axis=2)
    window = window * op.CastLike(op.Unsqueeze(inside, nought), prev)
    return op.Reshape(op.Transpose(window, perm=[0, 2, 1]), op.Concat(one, d * d, height, width, axis=0))


@script(STMASK, default_opset=op)
def SampleTaps(x, weight, offset, strides, pads):
    """Values of `x` at every tap of a deformable convolution: (1, C, taps * out height, out width)."""
    one = op.Constant(value_ints=[1])
    two = op.Constant(value_ints=[2])
    minus_one = op.Constant(value_ints=[-1])
    kernel_h = op.Shape(weight, start=2, end=3)
    kernel_w = op.Shape(weight, start=3, end=4)
    out_h = op.Shape(offset, start=2, end=3)
    out_w = op.Shape(offset, start=3, end=4)
    taps = kernel_h * kernel_w
    zero = op.Constant(value_int=0)
    step = op.Constant(value_int=1)
    tap = op.Range(zero, op.Squeeze(taps), step)
    stride_h, stride_w = op.Split(strides, num_outputs=2)
    pad_h, pad_w = op.Split(pads, num_outputs=2)
    # Sampling positions before offsets are added: (taps, out_h, 1) rows and (taps, 1, out_w) columns.
    column_shape = op.Concat(minus_one, one, one, axis=0)
    tap_y = op.Reshape(tap / kernel_w, column_shape)
    tap_x = op.Reshape(op.Mod(tap, kernel_w), column_shape)
    rows = op.Range(zero, op.Squeeze(out_h), step) * stride_h - pad_h
    columns = op.Range(zero, op.Squeeze(out_w), step) * stride_w - pad_w
    cell_y = op.Reshape(rows, op.Concat(one, minus_one, one, axis=0))
    cell_x = op.Reshape(columns, op.Concat(one, one, minus_one, axis=0))
    moves = op.Reshape(offset, op.Concat(taps, two, out_h, out_w, axis=0))
    move_y, move_x = op.Split(moves, axis=1, num_outputs=2)
    sample_y = op.CastLike(tap_y + cell_y, offset) + op.Squeeze(move_y, one)  # (taps, out_h, out_w)
    sample_x = op.CastLike(tap_x + cell_x, offset) + op.Squeeze(move_x, one)
    # Convert to GridSample's coordinates: -1 and 1 are the outer edges of the map (half-pixel centres).
    height = op.CastLike(op.Shape(x, start=2, end=3), offset)
    width = op.CastLike(op.Shape(x, start=3, end=4), offset)
    both = op.CastLike(two, offset)
    unit = op.CastLike(one, offset)
    grid = op.Concat(op.Unsqueeze((both * sample_x + unit) / width - unit, minus_one),
                     op.Unsqueeze((both * sample_y + unit) / height - unit, minus_one), axis=-1)
    grid = op.Reshape(grid, op.Concat(one, taps * out_h, out_w, two, axis=0))
    return op.GridSample(x, grid, mode="linear", padding_mode="zeros", align_corners=0)


@script(STMASK, default_opset=op)
def DeformConv(x, weight, offset, strides, pads):
    """Deformable convolution of one picture, without modulation or bias."""
    one = op.Constant(value_ints=[1])
    minus_one = op.Constant(value_ints=[-1])
    samples = SampleTaps(x, weight, offset, strides, pads)
    shape = op.Concat(one, minus_one, op.Shape(offset, start=2, end=4), axis=0)
    filters = op.Reshape(weight, op.Concat(op.Shape(weight, start=0, end=1), minus_one, one, one, axis=0))
    return op.Conv(op.Reshape(samples, shape), filters)


@script(STMASK, default_opset=op)
def ModulatedDeformConv(x, weight, offset, mask, bias, strides, pads):
    """DCNv2 of one picture: every sample is scaled by its mask value."""
    one = op.Constant(value_ints=[1])
    minus_one = op.Constant(value_ints=[-1])
    samples = SampleTaps(x, weight, offset, strides, pads)  # (1, C, taps * out_h, out_w)
    stacked = op.Concat(one, one, minus_one, op.Shape(offset, start=3, end=4), axis=0)
    samples = samples * op.Reshape(mask, stacked)
    shape = op.Concat(one, minus_one, op.Shape(offset, start=2, end=4), axis=0)
    filters = op.Reshape(weight, op.Concat(op.Shape(weight, start=0, end=1), minus_one, one, one, axis=0))
    return op.Conv(op.Reshape(samples, shape), filters, bias)


FUNCTIONS = {function.name: function for function in (Correlation, SampleTaps, DeformConv, ModulatedDeformConv)}


def operator(name: str, inputs: tuple[str, ...], integers: tuple[str, ...] = (), attributes: tuple[str, ...] = ()
             ) -> values.Op:
    """A callable that adds one node of the project's domain during translation.

    Args:
        name: the operator's name.
        inputs: names of the floating-point inputs.
        integers: names of the int64 inputs that follow them.
        attributes: names of the int attributes.
    """
    parameters = [OpSchema.FormalParameter(one, "T") for one in inputs]
    parameters += [OpSchema.FormalParameter(one, "tensor(int64)") for one in integers]
    schema = OpSchema(
        name, DOMAIN, VERSION, inputs=parameters, outputs=[OpSchema.FormalParameter("output", "T")],
        type_constraints=[("T", ["tensor(float)", "tensor(float16)", "tensor(bfloat16)"], "features")],
        attributes=[OpSchema.Attribute(one, OpSchema.AttrType.INT, "", required=True) for one in attributes])
    return values.Op(STMASK, name, schema)
