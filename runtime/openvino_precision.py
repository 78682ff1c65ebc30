"""Which parts of a graph OpenVINO's CPU plugin leaves in f32 when it is told to compute in bf16.

It leaves what leads to an output of the model with no heavy operation (convolution, matrix product) between, and
nothing else that can be asked for from here: marks on single operations have no effect. So values that 8 bits would
spoil, positions above all, become an output that nobody reads, of one number each.
"""
from __future__ import annotations

from typing import Any

from .openvino_constants import int64

Node = Any  # an openvino.Node or openvino.Output, of a package that may be absent

PREFIX = "kept_in_f32:"  # of such outputs' names


def keep_in_f32(model: Any, value: Node) -> None:
    """Have `value`, and all that it is computed from after the last heavy operation, computed in f32.

    Where all is computed in f32 it changes nothing.

    Args:
        model: an `openvino.Model`, changed in place.
        value: an output of one of its nodes, float, with one axis at least.
    """
    from openvino import opset13 as op

    flat = op.reshape(value, int64([-1]), special_zero=False)
    first = op.slice(flat, int64([0]), int64([1]), int64([1]))  # none where the value is empty
    first.output(0).get_tensor().set_names({f"{PREFIX}{len(model.outputs)}"})
    model.add_results([op.result(first)])


def kept_for(model: Any, part: Any) -> list[Node]:
    """The results that `keep_in_f32` added to `model`, of values that `part`, a model of the same nodes, computes."""
    computed = {node.get_friendly_name() for node in part.get_ordered_ops()}
    kept = [port.node for port in model.outputs if is_kept(port.any_name)]
    return [result for result in kept if _kept_value(result).get_node().get_friendly_name() in computed]


def _kept_value(result: Node) -> Node:
    first = result.input_value(0).get_node()
    return first.input_value(0).get_node().input_value(0)


def is_kept(name: str) -> bool:
    """Is the output of this name one that `keep_in_f32` made?"""
    return name.startswith(PREFIX)
