"""Selection of the layers that compute in 8 bits, by parameter name; layers not listed here stay in float.

For OpenVINO `int8_deformable` adds deformable convolutions.
"""
from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stmask_deploy.config import ModelConfig

# In the graphs, parameter names have the network's attribute name in the exported module as a prefix.
_PREFIX = re.compile(r"^(model|net)\.")
_HEAD = r"prediction_layers\.0\."

INT8 = re.compile("|".join((
    r"backbone\.layers\.\d+\.\d+\.(conv[123]|downsample\.0)", r"fpn\.(lat|pred|downsample)_layers\.\d+",
    r"proto_net\.\d+", _HEAD + r"upfeature\.0", _HEAD + r"(bbox|conf|mask|track)_extra\.\d+",
    r"conv[123]")))
FLOAT = {
    r"backbone\.conv1": "first convolution: it reads pixels, and 8 bits cost the most here for the least arithmetic",
    r".*\.conv_offset_mask": "predicts where a deformable convolution samples: an error moves the samples",
    r".*\.conv_offset": "predicts where a calibrated layer samples: an error moves the samples",
    _HEAD + r"(bbox|centerness)_layer\..*": "box and centerness outputs",  # one convolution in a graph
    _HEAD + r"conf_layer\..*": "class output: it decides which rows there are, and in which order",
    _HEAD + r"mask_layer\..*": "mask coefficient output",
    _HEAD + r"track_layer\..*": "embedding output",
    r"fc|fc_coeff": "output of the temporal network",
}
# The branches that the instance graph computes.
_INSTANCES = re.compile(_HEAD + r"(mask|track)_(extra|layer)\..*")
OF_KEPT_ROWS = "of the instance graph, which computes it for kept rows only"
DEFORMABLE = "deformable convolution: no integer kernel, and its sampling needs float"
UNKNOWN = "not a layer that is known to bear 8 bits"
OTHERS = ("everything without weights that stands between them or after them: sampling coordinates, RoI pooling, "
          "correlation, normalisation, softmax, choice of candidates, decoding")


@dataclass(frozen=True)
class Layer:
    """One layer and its precision."""

    graph: str  # role
    name: str  # as in the checkpoint, without ".weight"
    nodes: int  # number of nodes in the graph that use its weights
    reason: str | None  # why it stays in float; None for int8 layers

    def to_dict(self) -> dict[str, str | int]:
        """Plain JSON values."""
        kept = {"reason": self.reason} if self.reason else {}
        return {"graph": self.graph, "layer": self.name, "nodes": self.nodes,
                "precision": "float" if self.reason else "int8", **kept}


def layer_name(parameter: str) -> str:
    """The layer's name in the checkpoint, from the name of its parameter in a graph."""
    return _PREFIX.sub("", parameter).removesuffix(".weight")


def float_reason(layer: str, config: ModelConfig) -> str | None:
    """Why `layer` stays in float (deformable convolutions: except in OpenVINO); None if it computes in 8 bits."""
    if layer.endswith(".conv_adaption") or layer in {f"backbone.layers.{stage}.{block}.conv2"
                                                     for stage, block in config.deformable_blocks}:
        return DEFORMABLE
    for pattern, reason in FLOAT.items():
        if re.fullmatch(pattern, layer):
            return reason
    return None if INT8.fullmatch(layer) else UNKNOWN


def layers_of(role: str, parameters: Iterable[str], config: ModelConfig) -> tuple[Layer, ...]:
    """The layers of one graph, in order of use.

    Args:
        role: role of the graph.
        parameters: names of the weights of all nodes that have weights, with repetitions.
        config: configuration of the network.
    """
    nodes: dict[str, int] = {}
    for parameter in parameters:
        name = layer_name(parameter)
        nodes[name] = nodes.get(name, 0) + 1
    return tuple(Layer(role, name, count, float_reason(name, config)) for name, count in nodes.items())


def instance_layers(frame_layers: Iterable[Layer]) -> tuple[Layer, ...]:
    """The layers of the instance graph, which stays in float: copies of some in the frame graph.

    Runs leave out those of the frame graph.
    """
    return tuple(Layer("instances", layer.name, 1, OF_KEPT_ROWS) for layer in frame_layers
                 if _INSTANCES.fullmatch(layer.name))


def layer_lines(backend: str, layers: Iterable[Layer]) -> list[str]:
    """Lines of text: how many layers are int8, and which stay in float and why."""
    layers = tuple(layers)
    in_float: dict[str, list[str]] = {}
    for layer in layers:
        if layer.reason:
            in_float.setdefault(layer.reason, []).append(layer.name)
    total = sum(layer.reason is None for layer in layers)
    return [f"int8 on {backend}: {total} of {len(layers)} layers",
            *(f"  float: {_short(names)} ({reason})" for reason, names in in_float.items())]


def _short(names: list[str]) -> str:
    """Names as text; those that differ only in their numbers are merged."""
    groups: Mapping[str, None] = dict.fromkeys(re.sub(r"\b\d+\b", "*", name) if len(names) > 1 else name
                                               for name in names)
    return ", ".join(groups)
