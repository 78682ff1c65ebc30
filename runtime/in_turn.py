"""Graphs that run one at a time."""
from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from threading import Lock

from .backends import Backend, Value
from .delegating_backend import DelegatingBackend


class InTurn(DelegatingBackend):
    """A `Backend` that waits until none of the graphs that share `turn` runs.

    Each layer's work is split over the cores and ends with the last of them. Two graphs on the same cores hold each
    other up at every layer, and take longer than one after the other.
    """

    def __init__(self, graph: Backend, turn: Lock) -> None:
        super().__init__(graph)
        self._turn = turn

    def run(self, inputs: Mapping[str, Value], outputs: Sequence[str] | None = None,
            keep: Collection[str] = ()) -> dict[str, Value]:
        """See `Backend.run`."""
        with self._turn:
            return super().run(inputs, outputs, keep)
