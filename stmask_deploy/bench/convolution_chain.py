"""A chain of plain convolutions as an ONNX file: a backend's best case, by which everything else is judged.

The file is encoded field by field, so neither the `onnx` package nor a shipped file is needed. Both backends read it.
"""
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stmask_deploy.onnx_writer import write_ints, write_model, write_node, write_tensor, write_value

CHANNELS = 256
HEIGHT, WIDTH = 48, 80
KERNEL = 3
_ACTIVATION_SCALE, _WEIGHT_SCALE = 1 / 32, 1 / 2048


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
        tensors = [write_tensor("map", rng.standard_normal((1, CHANNELS, HEIGHT, WIDTH)).astype(self._type))]
        if self.precision == "int8":
            tensors += [write_tensor(name, np.array(value, kind)) for name, value, kind in (
                ("scale", _ACTIVATION_SCALE, np.float32), ("zero", 128, np.uint8),
                ("weight_scale", _WEIGHT_SCALE, np.float32), ("weight_zero", 0, np.int8))]
        nodes = [write_node("Add", ["start", "map"], "x0")]
        for i in range(self.depth):
            # Scaled so that the variance of the activations stays the same from layer to layer.
            weight = rng.standard_normal((CHANNELS, CHANNELS, KERNEL, KERNEL)) / np.sqrt(CHANNELS * KERNEL * KERNEL)
            weight_tensor, layer = self._layer(i, weight)
            tensors.append(weight_tensor)
            nodes += layer
        nodes.append(write_node("GlobalAveragePool", [f"x{self.depth}"], "end"))
        start, end = (write_value(name, self._type, (1, CHANNELS, 1, 1)) for name in ("start", "end"))
        return write_model("chain", nodes, [start], [end], tensors)

    def _layer(self, i: int, weight: NDArray[np.float64]) -> tuple[bytes, list[bytes]]:
        """The weight tensor of convolution `i`, and its nodes."""
        pads = write_ints("pads", [KERNEL // 2] * 4)
        if self.precision != "int8":
            plain = write_node("Conv", [f"x{i}", f"w{i}"], f"x{i + 1}", pads)
            return write_tensor(f"w{i}", weight.astype(self._type)), [plain]
        rounded = np.clip(np.rint(weight / _WEIGHT_SCALE), -127, 127).astype(np.int8)
        return write_tensor(f"w{i}", rounded), [
            write_node("QuantizeLinear", [f"x{i}", "scale", "zero"], f"q{i}"),
            write_node("DequantizeLinear", [f"q{i}", "scale", "zero"], f"d{i}"),
            write_node("DequantizeLinear", [f"w{i}", "weight_scale", "weight_zero"], f"dw{i}"),
            write_node("Conv", [f"d{i}", f"dw{i}"], f"x{i + 1}", pads)]
