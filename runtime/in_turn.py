"""Graphs that run one at a time."""
from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from threading import Lock

from .backends import Backend, Value


class InTurn:
    """A `Backend` that waits until none of the graphs that share `turn` runs.

    Each layer's work is split over the cores and ends with the last of them. Two graphs on the same cores hold each
    other up at every layer, and take longer than one after the other.
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
