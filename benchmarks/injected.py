"""A bundle whose graphs really run, but whose objects are made up: as many as are asked for, in places of their own."""
from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from stmask_deploy.config import ModelConfig
from stmask_deploy.runtime.backends import Backend, Value
from stmask_deploy.runtime.delegating_backend import DelegatingBackend
from stmask_deploy.runtime.loading import Bundle

COLUMNS, ROWS = 25, 20  # places for objects, none of which overlap
FILL = 0.8  # side of an object as a share of its place
SCORE, CENTERNESS = 0.9, 0.95
COEFFICIENT = 4.0  # of every prototype, which are not negative: masks fill their boxes


@dataclass(frozen=True)
class Objects:
    """Which objects each frame shows.

    Args:
        count: in every frame.
        change_every: frames after which all of them are others, in other places; None: they stay.
    """

    count: int
    change_every: int | None = None

    def identities(self, frame: int) -> Any:
        """(count,) int64."""
        first = 0 if self.change_every is None else frame // self.change_every * self.count
        return np.arange(first, first + self.count)


def boxes_of(identities: Any) -> Any:
    """(n, 4) xyxy, fractions of the padded frame; as many places as there are, then from the first one again."""
    places = identities % (COLUMNS * ROWS)
    corners = np.stack([places % COLUMNS / COLUMNS, places // COLUMNS / ROWS], axis=1)
    return np.concatenate([corners, corners + FILL / np.array([COLUMNS, ROWS])], axis=1).astype(np.float32)


def embeddings_of(identities: Any, width: int) -> Any:
    """(n, width) unit length, another one for every identity."""
    return np.stack([_embedding(int(identity), width) for identity in identities])


@cache
def _embedding(identity: int, width: int) -> Any:
    """(width,); kept, so that making it up takes no time of the frames that are measured."""
    row = np.random.default_rng(identity).standard_normal(width)
    return (row / np.linalg.norm(row)).astype(np.float32)


class _Injected(DelegatingBackend):
    """A `Backend` that runs another one and replaces what it finds."""

    def __init__(self, graph: Backend, config: ModelConfig) -> None:
        super().__init__(graph)
        self._config = config

    def run(self, inputs: Mapping[str, Value], outputs: Sequence[str] | None = None,
            keep: Collection[str] = ()) -> dict[str, Value]:
        """See `Backend.run`."""
        found = super().run(inputs, outputs, keep)
        return {**found, **{name: value for name, value in self.made_up(inputs).items() if name in found}}

    def made_up(self, inputs: Mapping[str, Value]) -> dict[str, Any]:
        raise NotImplementedError

    def _rows(self, identities: Any) -> dict[str, Any]:
        return {"mask_coeffs": np.full((len(identities), self._config.num_prototypes), COEFFICIENT, np.float32),
                "embeddings": embeddings_of(identities, self._config.embedding_dim)}


class InjectedFrame(_Injected):
    """The frame graph. It counts frames, so only runs in mode latency show them in their order."""

    def __init__(self, graph: Backend, config: ModelConfig, objects: Objects) -> None:
        super().__init__(graph, config)
        self._objects, self._frame = objects, 0

    def made_up(self, inputs: Mapping[str, Value]) -> dict[str, Any]:
        identities = self._objects.identities(self._frame)
        self._frame += 1
        scores = np.zeros((len(identities), self._config.num_classes - 1), np.float32)
        scores[:, 0] = SCORE
        # The identity is told to the instance graph as the anchor; every one of these anchors exists.
        return {"boxes": boxes_of(identities), "class_scores": scores, "anchor_index": identities % (COLUMNS * ROWS),
                "centerness": np.full(len(identities), CENTERNESS, np.float32),
                "num_candidates": np.int64(len(identities)), **self._rows(identities)}


class InjectedInstances(_Injected):
    """The instance graph."""

    def made_up(self, inputs: Mapping[str, Value]) -> dict[str, Any]:
        return self._rows(inputs["anchor_index"])


class InjectedTemporal(_Injected):
    """The temporal graph: nothing moves."""

    def made_up(self, inputs: Mapping[str, Value]) -> dict[str, Any]:
        count = len(inputs["boxes"])
        return {"box_deltas": np.zeros((count, 4), np.float32),
                "coeff_deltas": np.zeros((count, self._config.num_prototypes), np.float32)}


def inject(bundle: Bundle, objects: Objects) -> Bundle:
    """The bundle with these objects in every video, from its first frame on."""
    config = bundle.description.model
    return replace(bundle, frame=InjectedFrame(bundle.frame, config, objects),
                   instances=None if bundle.instances is None else InjectedInstances(bundle.instances, config),
                   temporal=None if bundle.temporal is None else InjectedTemporal(bundle.temporal, config))
