"""ONNX graph -> the same graph with 8-bit layers (QDQ), calibrated by ONNX Runtime."""
from __future__ import annotations

import logging
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

import onnx

from stmask_deploy.config import ModelConfig
from stmask_deploy.errors import StmaskError

from .calibration import Feed
from .functions import DOMAIN
from .int8_layers import Layer, float_reason, layer_name, layers_of

WEIGHTED = ("Conv", "DeformConv", "Gemm", "MatMul")
PASSES = ("Relu", "MaxPool")  # exact in 8 bits: they take the scale of what they read


def quantize_onnx(model: onnx.ModelProto, role: str, feeds: Sequence[Feed], config: ModelConfig
                  ) -> tuple[onnx.ModelProto, tuple[Layer, ...]]:
    """A copy of `model` whose layers compute in 8 bits where `int8_layers` allows it, and what became of each layer.

    Weights have a scale for each output channel, activations one for each tensor.

    Args:
        model: graph of `role`; stays as it is.
        role: of the graph.
        feeds: inputs to calibrate with.
        config: of the network.

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
    logging.disable(logging.WARNING)  # advice to fuse what this export has fused
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "int8.onnx"
            onnx.save(model, Path(folder) / "f32.onnx")
            quantize_static(Path(folder) / "f32.onnx", path, Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
                            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_quantize=nodes,
                            op_types_to_quantize=["Conv", "Add", *PASSES])
            return onnx.load(path), layers
    except (RuntimeError, ValueError) as error:
        raise StmaskError(f"ONNX Runtime cannot quantise the {role} graph: {error}") from error
    finally:
        logging.disable(level)


def int8_nodes(model: onnx.ModelProto, config: ModelConfig) -> list[str]:
    """Names of the nodes that are to compute in 8 bits: allowed convolutions, and what stands between them.

    That is a ReLU or a pooling behind one, and a sum of two such maps (the shortcuts of the backbone): left in float,
    each would cost two conversions and gain nothing, as what it gives is rounded to 8 bits for the next layer.
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
    """The one of a graph's `parameters` that a node multiplies with; None for nodes without."""
    is_own = node.domain == DOMAIN and node.op_type in ("DeformConv", "ModulatedDeformConv")
    if not is_own and (node.domain != "" or node.op_type not in WEIGHTED):
        return None
    return next((name for name in node.input[1:2] if name in parameters), None)
