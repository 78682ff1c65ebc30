"""Graphs that take turns instead of running concurrently."""
from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from threading import Lock

from .backends import Backend, Value
from .delegating_backend import DelegatingBackend


class InTurn(DelegatingBackend):
    """A `Backend` that serialises runs with all graphs that share the lock `turn`.

    Each layer is split over the cores and finishes with the slowest of them. Two graphs on the same cores delay each
    other at every layer, and take longer than one after the other.
    """

    def __init__(self, graph: Backend, turn: Lock) -> None:
        super().__init__(graph)
        self._turn = turn

    def run(self, inputs: Mapping[str, Value], outputs: Sequence[str] | None = None,
            keep: Collection[str] = ()) -> dict[str, Value]:
        """See `Backend.run`."""
        with self._turn:
            return super().run(inputs, outputs, keep)
