"""RoIAlign for OpenVINO's CPU plugin: one matrix product instead of its kernel.

The kernel reads four cells for every sample of a bin, and a large box has many samples. But the samples of a box form a
grid: the weight of a map cell in a bin is the product of a row weight and a column weight, and pooling is the matrix of
these weights ("shares") times the map. That is more arithmetic but takes less time. In bf16 the kernel gets boxes that
are already rounded to 8 mantissa bits; here positions stay in f32, and only the shares are rounded.
"""
from __future__ import annotations

from typing import Any

import numpy as np

from .openvino_constants import float32, int32, int64, reshaped
from .openvino_precision import keep_in_f32

Node = Any  # an openvino.Node or openvino.Output, of a package that may be absent

KIND = "ROIAlign"
ATTRIBUTES = {"sampling_ratio": 0, "spatial_scale": 1.0, "mode": "avg", "aligned_mode": "half_pixel_for_nn"}


def expand_roi_align(model: Any) -> int:
    """Replace every RoIAlign of an `openvino.Model` with standard operators, in place.

    Boxes must lie inside the map, as they do in this project's graphs. RoIAlign nodes that this project does not write
    are left unchanged: other sampling modes, batches of more than one picture, or maps of dynamic size.

    Returns:
        The number of nodes replaced.
    """
    from openvino.utils import replace_node

    found = [node for node in model.get_ordered_ops() if node.get_type_name() == KIND and _is_supported(node)]
    for node in found:
        guard = _guard(node)
        pooled, shares = _expanded(node, guard)
        replace_node(node if guard is None else guard, pooled)
        keep_in_f32(model, shares)
    return len(found)


def _is_supported(node: Node) -> bool:
    attributes = node.get_attributes()
    features = node.input(0).get_partial_shape()
    return features.is_static and features.to_shape()[0] == 1 and attributes["pooled_h"] == attributes["pooled_w"] \
        and all(attributes[name] == value for name, value in ATTRIBUTES.items())


def _guard(node: Node) -> Node | None:
    """The `Select` that zeroes the output of some boxes (see `lowering.py`), if it is the only reader of `node`."""
    readers = list(node.output(0).get_target_inputs())
    if len(readers) != 1 or readers[0].get_node().get_type_name() != "Select":
        return None
    select = readers[0].get_node()
    shape = select.input(0).get_partial_shape()
    is_per_box = len(shape) == 4 and all(size.is_static and size.get_length() == 1 for size in list(shape)[1:])
    return select if is_per_box and _is_zero(select.input_value(2).get_node()) else None


def _is_zero(node: Node) -> bool:
    if node.get_type_name() == "Convert":  # from a constant stored as f16
        node = node.input_value(0).get_node()
    return node.get_type_name() == "Constant" and not np.any(node.data)


def _expanded(node: Node, guard: Node | None) -> tuple[Node, Node]:
    """Features (1, C, H, W) and boxes (N, 4) -> pooled (N, C, bins, bins) and its shares (N * bins * bins, H * W)."""
    from openvino import opset13 as op

    features, boxes = (port.get_source_output() for port in node.inputs()[:2])
    channels, height, width = features.get_shape()[1:]
    bins = node.get_attributes()["pooled_h"]
    rows = _shares(boxes, 1, bins, height)
    if guard is not None:
        condition = reshaped(guard.input_value(0), [-1, 1, 1])
        rows = op.multiply(rows, op.convert(condition, "f32"))
    columns = _shares(boxes, 0, bins, width)
    shares = op.multiply(reshaped(rows, [-1, bins, 1, height, 1]), reshaped(columns, [-1, 1, bins, 1, width]))
    shares = reshaped(shares, [-1, height * width])
    cells = reshaped(features, [channels, height * width])
    pooled = reshaped(op.matmul(shares, cells, False, True), [-1, bins, bins, channels])
    result = op.transpose(pooled, int64([0, 3, 1, 2]))
    result.set_friendly_name(node.get_friendly_name())
    return result, shares.output(0)


def _shares(boxes: Node, axis: int, bins: int, length: int) -> Node:
    """Weights of the cells along an axis in each bin: boxes (N, 4) xyxy, axis 0 for x, 1 for y -> (N, bins, length).

    A bin averages ceil(side of the bin) samples, each interpolated between two cell centres, or clamped to the
    outermost one. A box without extent has no samples.
    """
    from openvino import opset13 as op

    def corner(index: int) -> Node:  # (N, 1, 1, 1)
        values = op.gather(boxes, int32(index), int32(1))
        return reshaped(values, [-1, 1, 1, 1])

    start = corner(axis)
    extent = op.subtract(corner(axis + 2), start)
    # The plugin divides by multiplying by the reciprocal, so that ceil(21 / 7) becomes 4. Therefore the samples are
    # counted instead: sample i exists if i < extent / bins, tested as bins * i < extent.
    most = -(-length // bins)  # upper limit for boxes inside the map
    sample = float32(np.arange(most).reshape(1, 1, -1, 1))
    is_used = op.convert(op.less(float32(bins * np.arange(most).reshape(1, 1, -1, 1)), extent), "f32")
    count = op.maximum(op.reduce_sum(is_used, int64([2]), True), float32(1))
    within = op.divide(op.add(sample, float32(0.5)), count)  # in bins
    first = float32(np.arange(bins).reshape(1, -1, 1, 1))
    side = op.divide(extent, float32(bins))  # of a bin
    point = op.add(op.subtract(start, float32(0.5)), op.multiply(side, op.add(first, within)))  # (N, bins, most, 1)
    cells = float32(np.arange(length).reshape(1, 1, 1, -1))
    distance = op.abs(op.subtract(op.clamp(point, 0.0, length - 1.0), cells))
    near = op.relu(op.subtract(float32(1), distance))  # (N, bins, most, length)
    return op.reduce_sum(op.multiply(near, op.divide(is_used, count)), int64([2]))
