"""A chain of plain convolutions as an ONNX file: a backend's best case, by which everything else is judged.

The file is encoded field by field, so neither the `onnx` package nor a shipped file is needed. Both backends read it.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stmask_deploy.protobuf import write_field

CHANNELS = 256
HEIGHT, WIDTH = 48, 80
KERNEL = 3
_IR_VERSION, _OPSET = 8, 17
# TensorProto.DataType
_TYPES = {"float32": 1, "uint8": 2, "int8": 3, "int64": 7, "float16": 10}
_ACTIVATION_SCALE, _WEIGHT_SCALE = 1 / 32, 1 / 2048
# AttributeProto.AttributeType
_INTS, _ATTRIBUTE_NAME, _ATTRIBUTE_INTS, _ATTRIBUTE_TYPE = 7, 1, 8, 20


@dataclass(frozen=True)
class ConvolutionChain:
    """`depth` 3x3 convolutions from 256 to 256 channels on 48x80 maps.

    The input `start` is (1, 256, 1, 1), added to a constant map; the output `end` is the mean over the final map. So
    next to nothing is copied to or from a device.

    Args:
        depth: number of convolutions.
        precision: f32 | bf16 | f16 | int8. bf16 is the f32 file, rounded by the backend at run time. int8 quantises
            both operands of every convolution.
    """

    depth: int
    precision: str

    @property
    def flops(self) -> int:
        """Floating-point operations; a multiplication and an addition count as two."""
        return 2 * self.depth * CHANNELS * CHANNELS * KERNEL * KERNEL * HEIGHT * WIDTH

    @property
    def start(self) -> NDArray[Any]:
        """The input."""
        return np.linspace(-1, 1, CHANNELS).astype(self._type).reshape(1, CHANNELS, 1, 1)

    @property
    def _type(self) -> str:
        return "float16" if self.precision == "f16" else "float32"

    def to_onnx(self) -> bytes:
        """The encoded ONNX model."""
        rng = np.random.default_rng(0)  # random values, because a GPU is faster on constant ones
        tensors = [_tensor("map", rng.standard_normal((1, CHANNELS, HEIGHT, WIDTH)).astype(self._type))]
        if self.precision == "int8":
            tensors += [_tensor("scale", np.float32(_ACTIVATION_SCALE)), _tensor("zero", np.uint8(128)),
                        _tensor("weight_scale", np.float32(_WEIGHT_SCALE)), _tensor("weight_zero", np.int8(0))]
        nodes = [_node("Add", ["start", "map"], "x0")]
        for i in range(self.depth):
            # Scaled so that the variance of the activations stays the same from layer to layer.
            weight = rng.standard_normal((CHANNELS, CHANNELS, KERNEL, KERNEL)) / np.sqrt(CHANNELS * KERNEL * KERNEL)
            weight_tensor, layer = self._layer(i, weight)
            tensors.append(weight_tensor)
            nodes += layer
        nodes.append(_node("GlobalAveragePool", [f"x{self.depth}"], "end"))
        graph = b"".join([*(write_field(1, node) for node in nodes), write_field(2, "chain"),
                          *(write_field(5, tensor) for tensor in tensors),
                          write_field(11, self._value("start")), write_field(12, self._value("end"))])
        return b"".join([write_field(1, _IR_VERSION), write_field(7, graph),
                         write_field(8, write_field(1, "") + write_field(2, _OPSET))])

    def _layer(self, i: int, weight: NDArray[np.float64]) -> tuple[bytes, list[bytes]]:
        """The weight tensor of convolution `i`, and its nodes."""
        pads = _ints("pads", [KERNEL // 2] * 4)
        if self.precision != "int8":
            return _tensor(f"w{i}", weight.astype(self._type)), [_node("Conv", [f"x{i}", f"w{i}"], f"x{i + 1}", pads)]
        rounded = np.clip(np.rint(weight / _WEIGHT_SCALE), -127, 127).astype(np.int8)
        return _tensor(f"w{i}", rounded), [
            _node("QuantizeLinear", [f"x{i}", "scale", "zero"], f"q{i}"),
            _node("DequantizeLinear", [f"q{i}", "scale", "zero"], f"d{i}"),
            _node("DequantizeLinear", [f"w{i}", "weight_scale", "weight_zero"], f"dw{i}"),
            _node("Conv", [f"d{i}", f"dw{i}"], f"x{i + 1}", pads)]

    def _value(self, name: str) -> bytes:
        """An encoded input or output, (1, 256, 1, 1)."""
        shape = b"".join(write_field(1, write_field(1, size)) for size in (1, CHANNELS, 1, 1))
        tensor = write_field(1, _TYPES[self._type]) + write_field(2, shape)
        return write_field(1, name) + write_field(2, write_field(1, tensor))


def _tensor(name: str, values: Any) -> bytes:
    array = np.asarray(values)
    return b"".join([*(write_field(1, size) for size in array.shape), write_field(2, _TYPES[array.dtype.name]),
                     write_field(8, name), write_field(9, array.tobytes())])


def _node(kind: str, inputs: list[str], output: str, *attributes: bytes) -> bytes:
    return b"".join([*(write_field(1, name) for name in inputs), write_field(2, output), write_field(3, output),
                     write_field(4, kind), *(write_field(5, attribute) for attribute in attributes)])


def _ints(name: str, values: list[int]) -> bytes:
    return b"".join([write_field(_ATTRIBUTE_NAME, name), *(write_field(_ATTRIBUTE_INTS, value) for value in values),
                     write_field(_ATTRIBUTE_TYPE, _INTS)])
