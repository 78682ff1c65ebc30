"""Graphs that take turns instead of running concurrently."""
from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from threading import Lock

from .backends import Backend, Value


class InTurn:
    """A `Backend` that serialises runs with all graphs that share the lock `turn`.

    Each layer is split over the cores and finishes with the slowest of them. Two graphs on the same cores delay each
    other at every layer, and take longer than one after the other.
    """

    def __init__(self, graph: Backend, turn: Lock) -> None:
        self.metadata, self.device, self.is_on_host = graph.metadata, graph.device, graph.is_on_host
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self.input_names, self.output_names = graph.input_names, graph.output_names
        self._graph, self._turn = graph, turn

    def run(self, inputs: Mapping[str, Value], outputs: Sequence[str] | None = None,
            keep: Collection[str] = ()) -> dict[str, Value]:
        """See `Backend.run`."""
        with self._turn:
            return self._graph.run(inputs, outputs, keep)
