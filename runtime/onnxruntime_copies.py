"""Copies between the host and a device during which Python's other threads go on."""
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
    """A session that copies values of known sizes, any number of them in one go.

    ONNX Runtime's functions that copy a single value hold Python's lock while they wait for the device. A run does not.

    Args:
        maker: of the sessions whose values they are.
        specs: of the values, by name.
    """

    def __init__(self, maker: SessionMaker, specs: Mapping[str, TensorSpec]) -> None:
        self._session = maker.open_copies(identities(specs))

    def run(self, values: Mapping[str, Value], places: Mapping[str, Any]) -> dict[str, Value]:
        """Copy all values, each to its place; see `run_on_device`. Several threads may call it at once."""
        copies = run_on_device(self._session, values, {name + _SUFFIX: place for name, place in places.items()})
        return dict(zip(places, copies.values(), strict=True))


def identities(specs: Mapping[str, TensorSpec]) -> bytes:
    """An encoded ONNX model with a node Identity from every name to that name with `_copy` behind it."""
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
