"""Quantisation of an ONNX graph to 8-bit layers (QDQ), calibrated by ONNX Runtime."""
from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

import onnx

from stmask_deploy.config import ModelConfig
from stmask_deploy.errors import StmaskError

from .functions import DOMAIN
from .int8_layers import Layer, float_reason, layer_name, layers_of
from .int8_recording import Feed

WEIGHTED = ("Conv", "DeformConv", "Gemm", "MatMul")
PASSES = ("Relu", "MaxPool")  # exact in 8 bits: the output has the scale of the input


def quantize_onnx(model: onnx.ModelProto, role: str, feeds: Sequence[Feed], config: ModelConfig
                  ) -> tuple[onnx.ModelProto, tuple[Layer, ...]]:
    """Quantise a copy of `model`, in the layers that `int8_layers` allows.

    Weights are quantised per output channel, activations per tensor.

    Args:
        model: the f32 graph; left unchanged.
        role: role of the graph.
        feeds: inputs to calibrate with.
        config: configuration of the network.

    Returns:
        The quantised graph and all its layers.

    Raises:
        StmaskError: ONNX Runtime cannot quantise the graph.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._feeds = iter(feeds)

        def get_next(self) -> Feed | None:
            return next(self._feeds, None)

    parameters = {one.name for one in model.graph.initializer}
    layers = layers_of(role, (weight for node in model.graph.node if (weight := weight_of(node, parameters))), config)
    nodes = int8_nodes(model, config)
    if not nodes:
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        return copy, layers
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)  # hides advice to fuse layers, which this export has already done
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "int8.onnx"
            onnx.save(model, Path(folder) / "f32.onnx")
            quantize_static(Path(folder) / "f32.onnx", path, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_quantize=nodes,
                            op_types_to_quantize=["Conv", "Add", *PASSES])
            return onnx.load(path), layers
    except OSError:  # of the disk
        raise
    except Exception as error:  # ONNX Runtime's own classes have no common base
        raise StmaskError(f"ONNX Runtime cannot quantise the {role} graph: {error}") from error
    finally:
        logging.disable(level)


def int8_nodes(model: onnx.ModelProto, config: ModelConfig) -> list[str]:
    """Names of the nodes to quantise: the allowed convolutions, and the simple operators between them.

    Those are ReLU and pooling after a quantised node, and sums of two quantised maps (the backbone's shortcuts). Left
    in float, each would cost two conversions for no gain, since its output is rounded to 8 bits for the next layer.
    """
    parameters = {one.name for one in model.graph.initializer}
    names: list[str] = []
    rounded: set[str] = set()  # tensors that have a scale
    for node in model.graph.node:
        weight = weight_of(node, parameters)
        if weight is not None:
            chosen = node.op_type == "Conv" and float_reason(layer_name(weight), config) is None
        else:
            chosen = node.op_type in ("Add", *PASSES) and all(name in rounded for name in node.input)
        if chosen:
            names.append(node.name)
            rounded.update(node.output)
    return names


def weight_of(node: onnx.NodeProto, parameters: Collection[str]) -> str | None:
    """Name of the weights of a node, if they are one of the graph's `parameters`; None for other nodes."""
    is_own = node.domain == DOMAIN and node.op_type in ("DeformConv", "ModulatedDeformConv")
    if not is_own and (node.domain != "" or node.op_type not in WEIGHTED):
        return None
    return next((name for name in node.input[1:2] if name in parameters), None)
