"""A graph in the place of another one."""
from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from .backends import Backend, Value


class DelegatingBackend:
    """A `Backend` that is another one, except for what a subclass overrides."""

    def __init__(self, graph: Backend) -> None:
        self._graph = graph
        self.metadata, self.device, self.is_on_host = graph.metadata, graph.device, graph.is_on_host
        self.inputs, self.outputs, self.whole_from = graph.inputs, graph.outputs, graph.whole_from

    def run(self, inputs: Mapping[str, Value], outputs: Sequence[str] | None = None,
            keep: Collection[str] = ()) -> dict[str, Value]:
        """See `Backend.run`."""
        return self._graph.run(inputs, outputs, keep)
