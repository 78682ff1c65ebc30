"""Replays a bundle's recorded graph outputs after given times, so that only the host's work is real."""
from __future__ import annotations

import time
import zlib
from collections import deque
from collections.abc import Collection, Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from stmask_deploy.errors import StmaskError
from stmask_deploy.runtime.backends import Backend, Value, chosen_outputs
from stmask_deploy.runtime.delegating_backend import DelegatingBackend
from stmask_deploy.runtime.loading import Bundle

ROLES = ("frame", "instances", "temporal")  # all prototypes come from the frame graph, as on a GPU
ROW_STEP = 32  # only every 32nd row of a picture is hashed; pictures that differ only in other rows count as equal
# The scheduler makes every sleep longer than requested by about this much.
OVERSLEEP_S = 6e-5
MAPS_AT_ONCE = 8  # maps in use at a time, including those of the previous frame, with a margin

Answers = dict[Hashable, dict[str, Any]]


class Record:
    """Records the outputs of `bundle`'s graphs. Maps that only graphs read are represented by a number each."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = replace(bundle, prototypes=None)
        self._answers: dict[str, Answers] = {role: {} for role in ROLES}
        self._maps: deque[tuple[Value, Any]] = deque(maxlen=MAPS_AT_ONCE)
        self._num_maps = 0

    def recording(self) -> Bundle:
        """A bundle that runs the graphs and records their outputs; for mode latency."""
        return self._with({role: _Recorder(graph, self, answers) for role, graph, answers in self._graphs()})

    def replaying(self, seconds: Mapping[str, float], one_at_a_time: bool = False) -> Bundle:
        """A bundle that replays the recorded outputs after `seconds` by role; for any mode.

        Each graph handles one call at a time. Different graphs run concurrently, as if a GPU had room for all of them,
        or, with `one_at_a_time`, one after another, as if it had room for only one. A real GPU is in between.

        Raises:
            StmaskError: (while running) an input was not recorded.
        """
        shared = ThreadPoolExecutor(1) if one_at_a_time else None
        return replace(self._with({role: _Player(graph, answers, seconds[role], shared or ThreadPoolExecutor(1))
                                   for role, graph, answers in self._graphs()}), may_overlap=True)

    def number_of(self, value: Value) -> Any:
        """(1,) int64 number of a map; a new one unless the map is among the latest."""
        for known, number in self._maps:
            if known is value:
                return number
        self._num_maps += 1
        number = np.array([self._num_maps])
        self._maps.append((value, number))
        return number

    def _graphs(self) -> list[tuple[str, Backend, Answers]]:
        graphs = ((role, getattr(self._bundle, role)) for role in ROLES)
        return [(role, graph, self._answers[role]) for role, graph in graphs if graph is not None]

    def _with(self, graphs: Mapping[str, Backend]) -> Bundle:
        return replace(self._bundle, **graphs)


class _Recorder(DelegatingBackend):
    def __init__(self, graph: Backend, record: Record, answers: Answers) -> None:
        super().__init__(graph)
        self._record, self._answers = record, answers

    def run(self, inputs: Mapping[str, Value], outputs: Sequence[str] | None = None,
            keep: Collection[str] = ()) -> dict[str, Value]:
        """See `Backend.run`."""
        found = super().run(inputs, outputs, keep)
        known = {name: self._record.number_of(value) if _is_map(name) else value for name, value in inputs.items()}
        self._answers[_key(known)] = {name: self._record.number_of(value) if name in keep else value
                                      for name, value in found.items()}
        return found


class _Player(DelegatingBackend):
    def __init__(self, graph: Backend, answers: Answers, seconds: float, thread: ThreadPoolExecutor) -> None:
        super().__init__(graph)
        self.is_on_host = False
        self._answers, self._seconds, self._thread = answers, seconds, thread

    def run(self, inputs: Mapping[str, Value], outputs: Sequence[str] | None = None,
            keep: Collection[str] = ()) -> dict[str, Value]:
        """See `Backend.run`."""
        answer = self._answers.get(_key(inputs))
        if answer is None:
            raise StmaskError("a graph was given inputs that were not recorded: replay the frames and options of the "
                              "recording")
        if self._seconds:
            self._thread.submit(time.sleep, max(0.0, self._seconds - OVERSLEEP_S)).result()
        return {name: answer[name] if name in keep else answer[name].copy()
                for name in chosen_outputs(self.outputs, outputs)}


def _is_map(name: str) -> bool:
    return name not in ("frame", "anchor_index", "boxes")


def _key(inputs: Mapping[str, Value]) -> Hashable:
    """What an output depends on: maps by their numbers, other inputs by their values."""
    return tuple((name, zlib.crc32(np.ascontiguousarray(value[0, ::ROW_STEP]))) if name == "frame"
                 else (name, np.asarray(value).tobytes()) for name, value in sorted(inputs.items()))
