"""Wraps a graph to record how it is run, so that its arithmetic can be counted."""
from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from stmask_deploy.runtime.backends import Backend, Value
from stmask_deploy.runtime.delegating_backend import DelegatingBackend
from stmask_deploy.runtime.loading import Bundle

_ROWS = {"instances": "anchor_index", "temporal": "boxes"}  # the input with a variable number of rows


class Call(NamedTuple):
    """One way in which a graph was run."""

    role: str
    outputs: tuple[str, ...]
    rows: int  # objects, or cells of the prototype graph's window; 0 for the frame graph


class WatchedGraph(DelegatingBackend):
    """A `Backend` wrapper that counts calls in `calls`."""

    def __init__(self, graph: Backend, role: str, calls: Counter[Call]) -> None:
        super().__init__(graph)
        self._role, self._calls = role, calls

    def run(self, inputs: Mapping[str, Value], outputs: Sequence[str] | None = None,
            keep: Collection[str] = ()) -> dict[str, Value]:
        """See `Backend.run`."""
        names = tuple(self.outputs if outputs is None else outputs)
        self._calls[Call(self._role, names, _rows(self._role, inputs))] += 1
        return super().run(inputs, outputs, keep)


def _rows(role: str, inputs: Mapping[str, Value]) -> int:
    if role == "prototypes":
        return int(np.prod(inputs["p3"].shape[2:]))
    return len(inputs[_ROWS[role]]) if role in _ROWS else 0


def watch(bundle: Bundle, calls: Counter[Call]) -> Bundle:
    """The same bundle, with graphs that count their calls in `calls`."""
    graphs: dict[str, Any] = {role: WatchedGraph(getattr(bundle, role), role, calls) for role in bundle.roles}
    return replace(bundle, **graphs)
