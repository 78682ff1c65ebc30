"""Convolutions for OpenVINO's CPU plugin, by Winograd's algorithm, which it lacks, as matrix products.

Matrices along rows and columns transform a map into values at points, and back; in between, each pair of points is a
separate matrix product. The maps have the layout (H, W, N, C), also from one convolution to the next.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .openvino_constants import floats, int64, is_stored, stored
from .winograd import KERNEL, TILE, WINDOW, Axis, axis, is_worthwhile, transformed

Node = Any  # an openvino.Node or openvino.Output, of a package that may be absent
Size = Any  # an int, or a Node of one number where the model does not fix it
MakeConstant = Callable[[Any, str], Node]  # from values and precision, as `openvino_constants.floats`

PAIRS = WINDOW ** 2  # pairs of points
ORDER = (2, 3, 0, 1)  # permutation of axes from NCHW to HWNC, and back
SMALL = 100  # cells: for maps up to this size, one matrix for all cells is faster than one each for rows and columns
# By measurement: tiles computed at a time, so that intermediate results stay in the cache; and (rows, columns) of tiles
# per block for maps of dynamic size, where small blocks waste less at the border.
BAND, OPEN_BLOCK = 80, (2, 4)


def expand_convolutions(model: Any, precision: str, columns: int, make_constant: MakeConstant = floats) -> int:
    """Replace 3x3 convolutions of an `openvino.Model` with matrix products, in place, where those are faster.

    If the map is another one upsampled bilinearly to twice its size, that one is read, unless it is tiny, of dynamic
    size or of one in which blocks do not fit, or something but a needless ReLU comes between.
    Left unchanged are convolutions with strides, dilation, groups or a padding other than one cell, those whose weights
    are not constant (as in 8 bits), and those with few channels, small maps or, in bf16, maps of dynamic size.

    Args:
        model: the model. The replaced weights become four times as many, and OpenVINO keeps a second copy.
        precision: "f32" or "bf16", the precision that the plugin computes in. In bf16 the new nodes have that type,
            since the plugin would compute the transforms in f32 and keep weights in both types.
        columns: tile columns per block of a map of known size, see `openvino_tuning`.
        make_constant: makes the nodes of the new weights.

    Returns:
        The number of convolutions replaced.
    """
    from openvino.utils import replace_node

    found = [(node, _upsampling(node.input_value(0))) for node in convolutions_to_expand(model, precision)]
    # By unique names, which friendly ones need not be:
    weights: dict[str, Node] = {}  # transformed weights by the original's name; pyramid levels share theirs
    ready: dict[str, Node] = {}  # values already available as (H, W, N, C), by the name of their node
    for node, upsampling in found:
        source, weight = node.input_value(0), node.input_value(1).get_node()
        axes = _axes(*_sizes(source)[1:], columns)
        if upsampling is not None and not _is_small(*axes):
            doubled = _axes(*_sizes(source)[1:], columns, is_doubled=True)
            if doubled[0].is_exact and doubled[1].is_exact:
                source, axes = upsampling.input_value(0), doubled
        made_from = weight.get_name()
        if made_from not in weights:
            weights[made_from] = make_constant(transformed(stored(weight)), precision)
        before = ready.get(source.get_node().get_name()) or _transposed(_converted(source, precision))
        convolved = _convolved(before, weights[made_from], *axes)
        for reader in _shape_readers(node):
            reader.replace_source_output(_restored(convolved, node).output(0))
        value, last = _with_what_follows(convolved, node)
        mean = _mean_of_map(last)
        name = (mean or last).get_friendly_name()
        if mean is not None:
            result = _mean(_converted(value, "f32"))
        else:
            result = _restored(value, last)
            ready[result.get_name()] = value
        replace_node(mean or last, result)
        result.set_friendly_name(name)
    return len(found)


def convolutions_to_expand(model: Any, precision: str) -> list[Node]:
    """The nodes that `expand_convolutions` would replace."""
    return [node for node in model.get_ordered_ops() if _is_supported(node, precision)]


def _is_supported(node: Node, precision: str) -> bool:
    if node.get_type_name() != "Convolution" or not is_stored(node.input_value(1).get_node()):
        return False
    attributes = node.get_attributes()
    filters, channels, *kernel = node.input_value(1).get_shape()
    return bool(kernel == [KERNEL, KERNEL] and node.get_output_element_type(0).get_type_name() == "f32"
                and _has(attributes, 1)
                and is_worthwhile(channels, filters, _sizes(node.input_value(0)), precision))


def _has(attributes: Any, pads: int) -> bool:
    """Whether a convolution has stride 1, dilation 1 and padding `pads`."""
    return all(list(attributes[name]) == [number, number] for name, number in
               {"strides": 1, "dilations": 1, "pads_begin": pads, "pads_end": pads}.items())


def _upsampling(value: Node) -> Node | None:
    """The node that upsamples another map bilinearly to twice its size, if `value` is its result or the ReLU of it.

    A ReLU does nothing there if it also precedes the upsampling, so it may be left out together with it.
    """
    node = value.get_node()
    if node.get_type_name() == "Relu":
        before = node.input_value(0).get_node()
        if before.get_type_name() != "Interpolate" or before.input_value(0).get_node().get_type_name() != "Relu":
            return None
        node = before
    if node.get_type_name() != "Interpolate":
        return None
    attributes = node.get_attributes()
    how = [attributes.get(name) for name in ("mode", "coordinate_transformation_mode", "shape_calculation_mode")]
    scales = node.input_value(1).get_node()
    is_double = (how == ["linear_onnx", "half_pixel", "scales"] and is_stored(scales)
                 and list(stored(scales)) == [1, 1, 2, 2])
    return node if is_double and not any(attributes["pads_begin"]) and not any(attributes["pads_end"]) else None


def _type(value: Node) -> str:
    return str(value.get_element_type().get_type_name())


def _converted(value: Node, precision: str) -> Node:
    from openvino import opset13 as op

    return value if _type(value) == precision else op.convert(value, precision)


def _rounded(parameter: Node, precision: str) -> Node:
    """Weights or biases in another type; not by OpenVINO, which rounds constants less well."""
    if _type(parameter) == precision or not is_stored(parameter.get_node()):
        return _converted(parameter, precision)
    return floats(stored(parameter.get_node()), precision)


def _sizes(value: Node) -> tuple[int | None, int | None, int | None]:
    """N, H and W of a value (N, C, H, W); None for dynamic ones."""
    maps, _, height, width = (size.get_length() if size.is_static else None for size in value.get_partial_shape())
    return maps, height, width


def _with_what_follows(value: Node, node: Node) -> tuple[Node, Node]:
    """Apply the per-cell operations that follow `node` to `value`, its output as (H, W, N, C).

    Returns:
        The resulting value, and the last of the original nodes that it replaces.
    """
    from openvino import opset13 as op

    while (reader := _only_reader(node)) is not None:
        kind = reader.get_type_name()
        if kind == "Relu":
            value = op.relu(value)
        elif kind == "Add" and (bias := _bias(reader, node)) is not None:
            value = op.add(value, _reshaped(_rounded(bias, _type(value)), [-1]))
        elif kind == "Convolution" and _is_pointwise(reader):
            weight = _rounded(reader.input_value(1), _type(value))
            value = op.matmul(value, _reshaped(weight, weight.get_shape()[:2]), False, True)
        else:
            break
        node = reader
    return value, node


def _shape_readers(node: Node) -> list[Node]:
    """Readers of only the shape of `node`'s output; converted models reshape biases with it."""
    return [reader for reader in node.output(0).get_target_inputs() if reader.get_node().get_type_name() == "ShapeOf"]


def _only_reader(node: Node) -> Node | None:
    readers = list(node.output(0).get_target_inputs())
    return readers[0].get_node() if len(readers) == 1 else None


def _bias(add: Node, node: Node) -> Node | None:
    """What `add` adds to `node`'s output, if that is one value per channel."""
    [bias] = [value for value in add.input_values()
              if value.get_node().get_friendly_name() != node.get_friendly_name()]  # x + x would count as two readers
    channels = node.get_output_partial_shape(0)[1].get_length()
    if not bias.get_partial_shape().is_static or list(bias.get_shape()) != [1, channels, 1, 1]:
        return None
    return bias.get_node().input_value(0) if bias.get_node().get_type_name() == "Reshape" else bias


def _is_pointwise(node: Node) -> bool:
    weight = node.input_value(1)
    return bool(is_stored(weight.get_node()) and list(weight.get_shape()[2:]) == [1, 1]
                and _has(node.get_attributes(), 0))


def _mean_of_map(node: Node) -> Node | None:
    """The reader of `node` that reduces each map to its mean, if it is the only reader."""
    reader = _only_reader(node)
    if reader is None or reader.get_type_name() != "ReduceMean" or reader.get_attributes()["keep_dims"]:
        return None
    axes = reader.input_value(1).get_node()
    return reader if axes.get_type_name() == "Constant" and sorted(axes.data.ravel()) == [2, 3] else None


def _mean(value: Node) -> Node:
    """(H, W, N, C) -> (N, C)."""
    from openvino import opset13 as op

    return op.reduce_mean(value, int64([0, 1]), keep_dims=False)


def _transposed(value: Node) -> Node:
    """NCHW -> HWNC, and back."""
    from openvino import opset13 as op

    return op.transpose(value, int64(ORDER))


def _restored(value: Node, node: Node) -> Node:
    """(H, W, N, C) -> (N, C, H, W), layout and type of `node`'s output."""
    from openvino import opset13 as op

    value = _converted(value, "f32")
    batch = node.get_output_partial_shape(0)[0]
    if batch.is_dynamic or batch.get_length() != 1:
        return _transposed(value)
    rows_first = op.unsqueeze(op.squeeze(value, int64([2])), int64([0]))  # NHWC, the memory layout convolutions prefer
    return op.transpose(rows_first, int64([0, 3, 1, 2]))


def _axes(height: int | None, width: int | None, columns: int, is_doubled: bool = False) -> tuple[Axis, Axis]:
    """Rows and columns of a map of this size, in blocks."""
    if height is None or width is None:
        return axis(height, OPEN_BLOCK[0]), axis(width, OPEN_BLOCK[1])
    if height * width <= SMALL:
        return axis(height, height), axis(width, width)
    return axis(height, max(BAND * TILE // width, 1), is_doubled), axis(width, columns, is_doubled)


def _is_small(rows: Axis, columns: Axis) -> bool:
    return rows.size is not None and columns.size is not None and rows.size * columns.size <= SMALL


def _convolved(x: Node, weight: Node, rows: Axis, columns: Axis) -> Node:
    """Maps (H, W, N, C), or those to be upsampled to them, and weights (36, C, O) -> (H, W, N, O)."""
    return (_convolved_at_once if _is_small(rows, columns) else _convolved_by_axis)(x, weight, rows, columns)


def _convolved_at_once(x: Node, weight: Node, rows: Axis, columns: Axis) -> Node:
    from openvino import opset13 as op

    cells = rows.reads * columns.reads
    inputs = np.einsum("atp,bsq->abtspq", rows.inputs(), columns.inputs()).reshape(-1, cells)
    results = np.einsum("pat,qbs->pqabts", rows.results(), columns.results()).reshape(cells, -1)
    points = op.matmul(floats(inputs, _type(x)), _reshaped(x, [cells, -1]), False, False)
    products = _products(points, weight)
    y = op.matmul(floats(results, _type(x)), _reshaped(products, [len(inputs), -1]), False, False)
    return _reshaped(y, [rows.writes, columns.writes, -1, weight.get_shape()[2]])


def _convolved_by_axis(x: Node, weight: Node, rows: Axis, columns: Axis) -> Node:
    from openvino import opset13 as op

    height, width = (_size(x, place, part.extent) for place, part in enumerate((rows, columns)))
    down, across = _blocks(height, rows), _blocks(width, columns)
    windows = _windows(x, 0, rows, height, down)
    if isinstance(down, int) and down > 1:
        y = op.concat([_band(band, weight, rows, columns, 1, width, across)
                       for band in op.split(windows, int64(0), down).outputs()], 0)
    else:
        y = _band(windows, weight, rows, columns, down, width, across)
    if rows.is_exact and columns.is_exact:
        return y
    return op.slice(y, int64([0, 0]), _shape([height, width]), int64([1, 1]), int64([0, 1]))


def _band(x: Node, weight: Node, rows: Axis, columns: Axis, down: Size, width: Size, across: Size) -> Node:
    """Row blocks (down * reads, W, N, C) and weights (36, C, O) -> (down * writes, across * writes, N, O)."""
    from openvino import opset13 as op

    kind, tile_rows = _type(x), _times(down, rows.tiles)
    points = op.matmul(floats(rows.inputs()[:, None], kind), _reshaped(x, [1, down, rows.reads, -1]), False, False)
    points = _windows(_reshaped(points, [WINDOW, tile_rows, width, -1]), 2, columns, width, across)
    points = op.matmul(floats(columns.inputs()[None, :, None, None], kind),
                       _reshaped(points, [WINDOW, 1, tile_rows, across, columns.reads, -1]), False, False)
    products = _reshaped(_products(points, weight), [WINDOW, WINDOW, _times(tile_rows, across), columns.tiles, -1])
    products = _reshaped(op.transpose(products, int64([0, 2, 1, 3, 4])),
                         [_times(_times(tile_rows, WINDOW), across), WINDOW * columns.tiles, -1])
    y = op.matmul(floats(columns.results().reshape(1, columns.writes, -1), kind), products, False, False)
    if not isinstance(down, int) or down > 1:
        y = op.transpose(_reshaped(y, [WINDOW, down, rows.tiles, -1]), int64([1, 0, 2, 3]))
    y = op.matmul(floats(rows.results().reshape(1, rows.writes, -1), kind),
                  _reshaped(y, [down, WINDOW * rows.tiles, -1]), False, False)
    return _reshaped(y, [_times(down, rows.writes), _times(across, columns.writes), -1, weight.get_shape()[2]])


def _products(points: Node, weight: Node) -> Node:
    """Multiply the values at all pairs of points, 36 * n * C in any shape, by weights (36, C, O) -> (36, n, O)."""
    from openvino import opset13 as op

    return op.matmul(_reshaped(points, [PAIRS, -1, weight.get_shape()[1]]), weight, False, False)


def _windows(x: Node, place: int, part: Axis, size: Size, blocks: Size) -> Node:
    """`x` with the (overlapping) cells that each block reads along axis `place`, block after block."""
    from openvino import opset13 as op

    if part.is_one_block:
        return x
    if part.size is not None:
        return op.gather(x, int64(part.cells().ravel()), int64(place))
    block = op.range(int64(0), op.squeeze(_shape([blocks]), int64([0])), int64(1), "i64")
    starts = op.multiply(_reshaped(block, [-1, 1]), int64([[TILE * part.tiles]]))
    cells = _reshaped(op.add(starts, int64(np.arange(part.reads)[None] - 1)), [-1])
    # Gather returns zeros for indices out of range, but counts negative ones from the end: map those to `size`.
    cells = op.select(op.less(cells, int64([0])), _shape([size]), cells)
    return op.gather(x, cells, int64(place))


def _size(x: Node, place: int, fixed: int | None) -> Size:
    from openvino import opset13 as op

    return op.gather(op.shape_of(x, "i64"), int64([place]), int64(0)) if fixed is None else fixed


def _blocks(size: Size, part: Axis) -> Size:
    from openvino import opset13 as op

    if part.size is not None:
        return part.blocks
    cells = TILE * part.tiles
    return op.divide(op.add(size, int64([cells - 1])), int64([cells]))


def _times(size: Size, factor: Size) -> Size:
    from openvino import opset13 as op

    if isinstance(size, int) and isinstance(factor, int):
        return size * factor
    return op.multiply(_shape([size]), _shape([factor]))


def _shape(sizes: list[Size]) -> Node:
    from openvino import opset13 as op

    if all(isinstance(size, int) for size in sizes):
        return int64(sizes)
    return op.concat([int64([size]) if isinstance(size, int) else size for size in sizes], 0)


def _reshaped(value: Node, sizes: list[Size]) -> Node:
    from openvino import opset13 as op

    return op.reshape(value, _shape(list(sizes)), special_zero=False)
