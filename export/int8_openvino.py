"""Quantisation of an OpenVINO model to 8-bit layers, calibrated by NNCF."""
from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stmask_deploy.config import ModelConfig
from stmask_deploy.errors import InputError, StmaskError
from stmask_deploy.openvino_library import unreported

from .int8_deformable import quantize_deformable
from .int8_layers import Layer, float_reason, layer_name, layers_of
from .int8_recording import Feed

if TYPE_CHECKING:
    import openvino

Node = Any  # an openvino.Node

WEIGHTED = {"Convolution": 1, "DeformableConvolution": 2, "MatMul": 1}  # operator -> index of the weights' input
MOVES = ("Reshape", "Transpose", "Convert", "Unsqueeze", "Squeeze")  # operators allowed between weights and layer
NO_OPERATIONS = ("Parameter", "Constant", "Result")


def require_nncf() -> Any:
    """The package `nncf`.

    Raises:
        InputError: it is not installed.
    """
    try:
        with unreported():
            import nncf
    except ImportError as error:
        raise InputError("int8 for OpenVINO needs the package nncf: pip install 'stmask-deploy[int8]'") from error
    return nncf


def quantize_openvino(model: openvino.Model, role: str, feeds: Sequence[Feed], config: ModelConfig
                      ) -> tuple[openvino.Model, tuple[Layer, ...]]:
    """Quantise a copy of `model`, in the layers that `int8_layers` allows and in deformable convolutions.

    Args:
        model: the graph with f32 weights; left unchanged.
        role: role of the graph.
        feeds: inputs to calibrate with.
        config: configuration of the network.

    Returns:
        The quantised model and all its layers.

    Raises:
        InputError: nncf is not installed.
        StmaskError: nncf cannot quantise the graph.
    """
    nncf = require_nncf()
    weights = {node.get_friendly_name(): weight for node in model.get_ordered_ops() if (weight := weight_of(node))}
    layers = layers_of(role, weights.values(), config)
    chosen = int8_nodes(model, config)
    if not chosen:
        return model.clone(), layers
    others = [node.get_friendly_name() for node in model.get_ordered_ops()
              if node.get_type_name() not in NO_OPERATIONS and node.get_friendly_name() not in chosen]
    nncf.set_log_level(logging.ERROR)
    try:
        with _quiet():
            quantized = nncf.quantize(
                model, nncf.Dataset(list(feeds), dict), subset_size=len(feeds), target_device=nncf.TargetDevice.CPU,
                preset=nncf.QuantizationPreset.MIXED,  # asymmetric activations have a zero point
                ignored_scope=nncf.IgnoredScope(names=others, validate=False))
        deformable = quantize_deformable(quantized, model, feeds)
    except OSError:  # of the disk
        raise
    except Exception as error:  # its own classes have no common base
        raise StmaskError(f"nncf cannot quantise the {role} graph: {error}") from error
    kept = {layer_name(weight) for name, weight in weights.items() if name not in deformable}
    return quantized, tuple(layer if layer.name in kept else replace(layer, reason=None) for layer in layers)


def int8_nodes(model: openvino.Model, config: ModelConfig) -> set[str]:
    """Friendly names of the nodes to quantise, chosen as in `int8_onnx.int8_nodes`."""
    names: set[str] = set()
    rounded: set[str] = set()  # nodes whose output has a scale
    for node in model.get_ordered_ops():
        kind, name = node.get_type_name(), node.get_friendly_name()
        weight = weight_of(node)
        inputs = [value.get_node() for value in node.input_values()]
        maps = [one for one in inputs if constant_behind(one) is None]  # without biases
        if weight is not None:
            if kind == "Convolution" and float_reason(layer_name(weight), config) is None:
                names.add(name)
                rounded.add(name)
        elif kind in ("Add", "Relu", "MaxPool") and all(one.get_friendly_name() in rounded for one in maps):
            rounded.add(name)
            if kind == "Add" and len(maps) == 2:
                names.add(name)
    return names


def weight_of(node: Node) -> str | None:
    """Name of the weights of a node; None for nodes without weights."""
    position = WEIGHTED.get(node.get_type_name())
    constant = None if position is None else constant_behind(node.input_value(position).get_node())
    return None if constant is None else str(constant.get_friendly_name())


def constant_behind(node: Node) -> Node | None:
    """The constant that a node outputs, possibly reshaped or converted; None for other nodes."""
    while node.get_type_name() in MOVES:
        node = node.input_value(0).get_node()
    return node if node.get_type_name() == "Constant" else None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress nncf's progress bars; its errors are still raised."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
