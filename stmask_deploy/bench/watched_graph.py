"""A graph that remembers how it was run, so that its arithmetic can be counted."""
from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from stmask_deploy.runtime.backends import Backend, Value
from stmask_deploy.runtime.loading import Bundle

_ROWS = {"instances": "anchor_index", "temporal": "boxes"}  # the input with any number of rows


class Call(NamedTuple):
    """One way a graph was run."""

    role: str
    outputs: tuple[str, ...]
    rows: int  # objects; 0 for the frame graph


class WatchedGraph:
    """A `Backend` that counts the calls of another one in `calls`."""

    def __init__(self, graph: Backend, role: str, calls: Counter[Call]) -> None:
        self.metadata, self.device = graph.metadata, graph.device
        self.inputs, self.outputs = graph.inputs, graph.outputs
        self.input_names, self.output_names = graph.input_names, graph.output_names
        self._graph, self._role, self._calls = graph, role, calls

    def run(self, inputs: Mapping[str, Value], outputs: Sequence[str] | None = None,
            keep: Collection[str] = ()) -> dict[str, Value]:
        """See `Backend.run`."""
        names = tuple(self.output_names if outputs is None else outputs)
        rows = len(inputs[_ROWS[self._role]]) if self._role in _ROWS else 0
        self._calls[Call(self._role, names, rows)] += 1
        return self._graph.run(inputs, outputs, keep)


def watch(bundle: Bundle, calls: Counter[Call]) -> Bundle:
    """The same bundle, whose graphs count their calls in `calls`."""
    def watched(graph: Backend | None, role: str) -> Backend | None:
        return None if graph is None else WatchedGraph(graph, role, calls)

    return replace(bundle, frame=WatchedGraph(bundle.frame, "frame", calls),
                   instances=watched(bundle.instances, "instances"), temporal=watched(bundle.temporal, "temporal"))
