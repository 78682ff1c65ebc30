"""Copies between host and device that release the GIL."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stmask_deploy.onnx_writer import write_model, write_node, write_value

from .backends import TensorSpec, Value
from .onnxruntime_session import SessionMaker, run_on_device

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
    return write_model(
        "copies", [write_node("Identity", [name], name + _SUFFIX) for name in specs],
        [write_value(name, spec.dtype, _sizes(spec)) for name, spec in specs.items()],
        [write_value(name + _SUFFIX, spec.dtype, _sizes(spec)) for name, spec in specs.items()])


def _sizes(spec: TensorSpec) -> list[int]:
    return [size or 0 for size in spec.shape]
