"""Deformable convolution for OpenVINO's CPU plugin in bf16 and int8: gathered pixels instead of its f32 kernel.

The plugin's own kernel always computes in f32, between two conversions. Standard operators follow the precision hint,
but the usual one, GridSample, is inaccurate in bf16: with 8 mantissa bits the position 60.3 becomes 60.25 or 60.5. Here
only the *offset* is a floating-point number. Its integer part moves an integer cell index, which is exact, and its
fraction, in [0, 1), gives the weights of the four surrounding pixels, so bf16 rounding hurts no more than in any layer.

Bundles of `stmask-export --dcn gridsample` contain GridSample; for these, positions are kept in f32.
"""
from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .openvino_constants import float32, floats, int32, int64, is_stored, reshaped, stored
from .openvino_precision import keep_in_f32

Node = Any  # an openvino.Node or openvino.Output, of a package that may be absent
Size = tuple[int, int]  # (height, width)

KIND = "DeformableConvolution"
BAND = 1 << 20  # values sampled at a time, by measurement, so that they stay in the cache until they are multiplied


def expand_deformable(model: Any, *, only_int8: bool = False) -> int:
    """Replace deformable convolutions of an `openvino.Model` with standard operators, in place.

    Those that this project does not write are left unchanged: with groups, dilation, batches, computed weights or
    dynamic sizes.

    Args:
        model: the model.
        only_int8: replace only those marked for 8 bits, whose map and weights each have a FakeQuantize. Their samples
            are rounded instead of the map, so that the products compute in 8 bits.

    Returns:
        The number of nodes replaced.
    """
    from openvino.utils import replace_node

    found = [node for node in model.get_ordered_ops() if node.get_type_name() == KIND and _is_supported(node)
             and (_is_int8(node) or not only_int8)]
    for node in found:
        replace_node(node, _expanded(node))
    return len(found)


def keep_grids(model: Any) -> int:
    """Keep the positions of every GridSample of an `openvino.Model` in f32, in place.

    Returns:
        The number of GridSample nodes.
    """
    found = [node for node in model.get_ordered_ops() if node.get_type_name() == "GridSample"]
    for node in found:
        keep_in_f32(model, node.input_value(1))
    return len(found)


def _is_supported(node: Node) -> bool:
    attributes = node.get_attributes()
    is_static = all(port.get_partial_shape().is_static for port in (*node.inputs(), node.output(0)))
    return bool(is_static and is_stored(_unquantized(node.input_value(2)).get_node())
                and node.input(0).get_shape()[0] == 1
                and attributes["group"] == 1 and attributes["deformable_group"] == 1
                and list(attributes["dilations"]) == [1, 1])


def _is_int8(node: Node) -> bool:
    return all(node.input_value(place).get_node().get_type_name() == "FakeQuantize" for place in (0, 2))


def _unquantized(value: Node) -> Node:
    return value.get_node().input_value(0) if value.get_node().get_type_name() == "FakeQuantize" else value


def _quantized_like(model: Node, value: Node, shape: tuple[int, int]) -> Node:
    """`value`, rounded as by `model` if that is a FakeQuantize, whose limits get another shape."""
    from openvino import opset13 as op

    node = model.get_node()
    if node.get_type_name() != "FakeQuantize":
        return value
    limits = [floats(stored(limit.get_node()).reshape(shape), "f32") for limit in node.input_values()[1:]]
    return op.fake_quantize(value, *limits, node.get_attributes()["levels"])


def _expanded(node: Node) -> Node:
    """x (1, C, H, W), offsets (1, 2 * taps, h, w), weights (O, C, kh, kw), optional masks -> (1, O, h, w)."""
    from openvino import opset13 as op

    x, offset, weight, *masks = (port.get_source_output() for port in node.inputs())
    attributes = node.get_attributes()
    filters, channels, *kernel = weight.get_shape()
    out_h, out_w = node.output(0).get_shape()[2:]
    cells, taps = out_h * out_w, kernel[0] * kernel[1]

    offset = _by_cell(offset, [taps, 2, cells])
    whole = op.floor(offset)
    share = op.subtract(offset, whole)
    # Clamp, because huge floats do not convert to int32; the limits still lie off the map.
    reach = np.float32(2 * (max(x.get_shape()[2:]) + max(kernel)) + max(out_h, out_w) * max(attributes["strides"]))
    start = _starts((out_h, out_w), (kernel[0], kernel[1]), attributes["strides"], attributes["pads_begin"])
    corner = op.add(op.convert(op.clamp(whole, -reach, reach), "i32"), int32(start))
    factors = _by_cell(masks[0], [taps, cells]) if masks else None
    # Bands share one packed copy of a constant, but not of what a constant has to be transposed or reshaped to.
    plain = stored(_unquantized(weight).get_node()).transpose(0, 2, 3, 1).reshape(filters, -1)
    rows = _quantized_like(weight, floats(plain, "f32"), (-1, 1))
    bands = [op.matmul(_quantized_like(x, reshaped(sampled, [-1, taps * channels]), (1, 1)), rows, False, True)
             for sampled in _bilinear(_unquantized(x), corner, share, factors, _band_lengths(cells, taps * channels))]
    out = reshaped(op.concat(bands, 0), [1, out_h, out_w, filters])
    result = op.transpose(out, int64([0, 3, 1, 2]))
    result.set_friendly_name(node.get_friendly_name())
    return result


def _band_lengths(cells: int, values: int) -> list[int]:
    """Even parts of `cells` that sample `BAND` values at most, or one cell more; a cell samples `values`."""
    return [len(part) for part in np.array_split(np.arange(cells), -(-cells * values // BAND))]


def _by_cell(values: Node, shape: list[int]) -> Node:
    """Reshape to `shape`, and reverse the order of its axes."""
    from openvino import opset13 as op

    return op.transpose(reshaped(values, shape), int64(range(len(shape))[::-1]))


def _starts(out: Size, kernel: Size, strides: list[int], pads: list[int]) -> NDArray[np.int32]:
    """(cells, 2, taps) row and column that each tap reads for each output cell, before offsets are added."""
    starts = np.zeros((*out, 2, *kernel), np.int32)
    starts[:, :, 0] = np.arange(kernel[0])[:, None] + np.arange(out[0])[:, None, None, None] * strides[0] - pads[0]
    starts[:, :, 1] = np.arange(kernel[1])[None] + np.arange(out[1])[:, None, None] * strides[1] - pads[1]
    return starts.reshape(out[0] * out[1], 2, kernel[0] * kernel[1])


def _bilinear(x: Node, corner: Node, share: Node, factors: Node | None, lengths: list[int]) -> list[Node]:
    """Bilinear samples of a map, with zeros beyond its border.

    Args:
        x: (1, C, H, W).
        corner: (cells, 2, taps) int32 row and column of the upper left pixel.
        share: (cells, 2, taps) in [0, 1), fractional position below and right of it.
        factors: (cells, taps) to multiply the samples by, or None.
        lengths: number of cells of each band.

    Returns:
        For each band (length, taps, C).
    """
    from openvino import opset13 as op

    channels, height, width = x.get_shape()[1:]
    ring = int64([0, 0, 1, 1])  # padding by one ring of zeros, which all samples off the map read
    padded = op.pad(x, ring, ring, "constant", float32(0))
    pixels = reshaped(op.transpose(padded, int64([0, 2, 3, 1])), [(height + 2) * (width + 2), channels])
    one, first = float32(1), int32(0)
    totals: list[Node] = []
    for down in (0, 1):
        weight_y = _axis(share, 0) if down else op.subtract(one, _axis(share, 0))
        if factors is not None:
            weight_y = op.multiply(weight_y, factors)
        row = op.multiply(_in_ring(_axis(corner, 0), down, height), int32(width + 2))
        for right in (0, 1):
            weight_x = _axis(share, 1) if right else op.subtract(one, _axis(share, 1))
            index = op.add(row, _in_ring(_axis(corner, 1), right, width))  # (cells, taps)
            weight = op.unsqueeze(op.multiply(weight_y, weight_x), int64([2]))
            parts = [op.multiply(op.gather(pixels, cells, first), weights)
                     for cells, weights in zip(_split(index, lengths), _split(weight, lengths), strict=True)]
            totals = [op.add(*pair) for pair in zip(totals, parts, strict=True)] if totals else parts
    return totals


def _split(value: Node, lengths: list[int]) -> list[Node]:
    from openvino import opset13 as op

    return list(op.variadic_split(value, int64(0), int64(lengths)).outputs())


def _in_ring(cell: Node, step: int, length: int) -> Node:
    """Index of `cell + step` in an axis of `length` cells padded by one at each end, clamped to the padding."""
    from openvino import opset13 as op

    moved = op.add(cell, int32(step + 1))
    return op.minimum(op.maximum(moved, int32(0)), int32(length + 1))


def _axis(values: Node, index: int) -> Node:
    """(cells, 2, taps) -> (cells, taps)."""
    from openvino import opset13 as op

    return op.gather(values, int32(index), int32(1))
