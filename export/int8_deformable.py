"""8 bits for the products of deformable convolutions in an OpenVINO model; their samples are computed in float.

OpenVINO has no integer kernel for them, and nncf leaves them alone. Here the map and the weights get a FakeQuantize
each. Where standard operators sample the map (`runtime.openvino_sampling`), the first is moved behind the samples,
which lie in the same range, and the plugin multiplies in 8 bits. Anywhere else the two only round.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .int8_recording import Feed

if TYPE_CHECKING:
    import openvino

Node = Any  # an openvino.Node

KIND = "DeformableConvolution"
MAP_LEVELS, WEIGHT_LEVELS = 256, 255  # from zero to the largest value, and from minus to plus the largest
SMALLEST = 2.0 ** -14  # limit of weights: the smallest normal number of f16, which a model's constants may be stored in


def quantize_deformable(quantized: openvino.Model, model: openvino.Model, feeds: Sequence[Feed]) -> set[str]:
    """Mark deformable convolutions of `quantized` for 8 bits, in place: those that read the output of a ReLU.

    Args:
        quantized: a copy of `model`, with the same names; other layers may already be quantised.
        model: the graph in float; left unchanged.
        feeds: inputs to calibrate with. The limit of a map is, as in nncf, the mean of every input's largest value.

    Returns:
        Friendly names of these nodes.
    """
    limits = _limits(model, feeds)
    for node in quantized.get_ordered_ops():
        if node.get_friendly_name() in limits:
            _quantize(node, limits[node.get_friendly_name()])
    return set(limits)


def _limits(model: openvino.Model, feeds: Sequence[Feed]) -> Mapping[str, float]:
    """Friendly name -> limit of the map that the node reads; nodes that only read zeros are left out."""
    import openvino
    from openvino import opset13 as op

    found = [node for node in model.get_ordered_ops() if node.get_type_name() == KIND
             and [node.input_value(place).get_node().get_type_name() for place in (0, 2)] == ["Relu", "Constant"]]
    if not found:
        return {}
    largest = [op.result(op.reduce_max(node.input_value(0), np.arange(4), keep_dims=False)) for node in found]
    compiled = openvino.Core().compile_model(openvino.Model(largest, model.get_parameters()), "CPU",
                                             {"INFERENCE_PRECISION_HINT": openvino.Type.f32})
    request = compiled.create_infer_request()
    values = np.mean([list(request.infer(dict(feed)).values()) for feed in feeds], axis=0)
    return {node.get_friendly_name(): float(value) for node, value in zip(found, values, strict=True) if value > 0}


def _quantize(node: Node, limit: float) -> None:
    from openvino import opset13 as op

    low, high = np.float32(0), np.float32(limit)
    rounded = op.fake_quantize(node.input_value(0), low, high, low, high, MAP_LEVELS)
    node.input(0).replace_source_output(rounded.output(0))
    weight = node.input_value(2)
    extent = np.maximum(np.abs(weight.get_node().data).max((1, 2, 3), keepdims=True), SMALLEST).astype(np.float32)
    rounded = op.fake_quantize(weight, -extent, extent, -extent, extent, WEIGHT_LEVELS)
    node.input(2).replace_source_output(rounded.output(0))
