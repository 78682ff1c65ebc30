"""Convolutions for OpenVINO's CPU plugin, by Winograd's algorithm, which it lacks, as matrix products.

The maps have the layout (H, W, N, C), also from one convolution to the next.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .openvino_constants import element_type, floats, int64, is_stored, reshaped, stored
from .openvino_convolution import axes, convolved
from .winograd import KERNEL, is_worthwhile, transformed

Node = Any  # an openvino.Node or openvino.Output, of a package that may be absent
MakeConstant = Callable[[Any, str], Node]  # from values and precision, as `openvino_constants.floats`

ORDER = (2, 3, 0, 1)  # permutation of axes from NCHW to HWNC, and back


def expand_convolutions(model: Any, precision: str, columns: int, make_constant: MakeConstant = floats) -> int:
    """Replace 3x3 convolutions of an `openvino.Model` with matrix products, in place, where those are faster.

    If the map is another one upsampled bilinearly to twice its size, that one is read, unless the map is tiny, its size
    is dynamic or no multiple of four, or something other than a needless ReLU comes between.
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
        parts = axes(*_sizes(source)[1:], columns, is_upsampled=upsampling is not None)
        if upsampling is not None and parts[0].is_doubled:
            source = upsampling.input_value(0)
        made_from = weight.get_name()
        if made_from not in weights:
            weights[made_from] = make_constant(transformed(stored(weight)), precision)
        before = ready.get(source.get_node().get_name()) or _transposed(_converted(source, precision))
        value = convolved(before, weights[made_from], *parts)
        for reader in _shape_readers(node):
            reader.replace_source_output(_restored(value, node).output(0))
        value, last = _with_what_follows(value, node)
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
    how = [attributes.get(name) for name in ("mode", "coordinate_transformation_mode")]
    if how != ["linear_onnx", "half_pixel"] or any(attributes["pads_begin"]) or any(attributes["pads_end"]):
        return None
    scales = node.input_value(1).get_node()  # or sizes, which would not tell a scale of 2 from one of a little more
    return node if is_stored(scales) and list(stored(scales)) == [1, 1, 2, 2] else None


def _converted(value: Node, precision: str) -> Node:
    from openvino import opset13 as op

    return value if element_type(value) == precision else op.convert(value, precision)


def _rounded(parameter: Node, precision: str) -> Node:
    """Weights or biases in another type; not by OpenVINO, which rounds constants less well."""
    if element_type(parameter) == precision or not is_stored(parameter.get_node()):
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
            value = op.add(value, reshaped(_rounded(bias, element_type(value)), [-1]))
        elif kind == "Convolution" and _is_pointwise(reader):
            weight = _rounded(reader.input_value(1), element_type(value))
            value = op.matmul(value, reshaped(weight, weight.get_shape()[:2]), False, True)
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
