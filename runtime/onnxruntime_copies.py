"""Copies between host and device that release the GIL."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stmask_deploy.protobuf import write_field

from .backends import TensorSpec, Value
from .onnxruntime_session import SessionMaker, run_on_device

_IR_VERSION, _OPSET = 10, 20
_TYPES = {"float32": 1, "uint8": 2, "int64": 7, "float16": 10}  # of onnx.proto
_SUFFIX = "_copy"


class Copies:
    """A session that copies any number of values of known shapes in one run.

    ONNX Runtime's functions for copying a single value hold the GIL while they wait for the device. A run does not.

    Args:
        maker: maker of the sessions that the values belong to.
        specs: type and shape of the values, by name.
    """

    def __init__(self, maker: SessionMaker, specs: Mapping[str, TensorSpec]) -> None:
        self._session = maker.open_copies(identities(specs))

    def run(self, values: Mapping[str, Value], places: Mapping[str, Any]) -> dict[str, Value]:
        """Copy all values, each to its place; see `run_on_device`. Thread-safe."""
        copies = run_on_device(self._session, values, {name + _SUFFIX: place for name, place in places.items()})
        return dict(zip(places, copies.values(), strict=True))


def identities(specs: Mapping[str, TensorSpec]) -> bytes:
    """An encoded ONNX model with an Identity node for every name, whose output is the name with the suffix `_copy`."""
    nodes = b"".join(write_field(1, write_field(1, name) + write_field(2, name + _SUFFIX) + write_field(4, "Identity"))
                     for name in specs)
    inputs = b"".join(write_field(11, _value_info(name, spec)) for name, spec in specs.items())
    outputs = b"".join(write_field(12, _value_info(name + _SUFFIX, spec)) for name, spec in specs.items())
    graph = nodes + write_field(2, "copies") + inputs + outputs
    return write_field(1, _IR_VERSION) + write_field(7, graph) + write_field(8, write_field(2, _OPSET))


def _value_info(name: str, spec: TensorSpec) -> bytes:
    sizes = b"".join(write_field(1, write_field(1, size or 0)) for size in spec.shape)
    tensor = write_field(1, _TYPES[spec.dtype]) + write_field(2, sizes)
    return write_field(1, name) + write_field(2, write_field(1, tensor))
