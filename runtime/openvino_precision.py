"""Keeping parts of a graph in f32 when OpenVINO's CPU plugin computes in bf16.

The plugin keeps f32 only on paths to a model output that contain no heavy operation (convolution, matrix product);
marks on single operations have no effect. So values that would suffer from 8 mantissa bits, above all positions, are
made extra outputs, of one element each, that nothing reads.
"""
from __future__ import annotations

from typing import Any

from .openvino_constants import int64, reshaped

Node = Any  # an openvino.Node or openvino.Output, of a package that may be absent

PREFIX = "kept_in_f32:"  # prefix of these outputs' names


def keep_in_f32(model: Any, value: Node) -> None:
    """Keep `value`, and everything between it and the preceding heavy operations, in f32.

    No effect on results if the whole model computes in f32.

    Args:
        model: an `openvino.Model`, changed in place.
        value: float output of one of its nodes, with at least one axis.
    """
    from openvino import opset13 as op

    flat = reshaped(value, [-1])
    first = op.slice(flat, int64([0]), int64([1]), int64([1]))  # empty if the value is empty
    first.output(0).get_tensor().set_names({f"{PREFIX}{len(model.outputs)}"})
    model.add_results([op.result(first)])


def kept_for(model: Any, part: Any) -> list[Node]:
    """The results that `keep_in_f32` added to `model` and whose values `part`, a model of the same nodes, computes."""
    computed = {node.get_friendly_name() for node in part.get_ordered_ops()}
    kept = [port.node for port in model.outputs if is_kept(port.any_name)]
    return [result for result in kept if _kept_value(result).get_node().get_friendly_name() in computed]


def _kept_value(result: Node) -> Node:
    first = result.input_value(0).get_node()
    return first.input_value(0).get_node().input_value(0)


def is_kept(name: str) -> bool:
    """Whether the output of this name was added by `keep_in_f32`."""
    return name.startswith(PREFIX)
