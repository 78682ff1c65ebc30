"""A bundle whose graphs really run but whose detections are replaced by any number of synthetic, separate objects."""
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

COLUMNS, ROWS = 25, 20  # grid of non-overlapping places for objects
FILL = 0.8  # side of an object as a fraction of its place
SCORE, CENTERNESS = 0.9, 0.95
COEFFICIENT = 4.0  # for every prototype; prototypes are non-negative, so masks fill their boxes


@dataclass(frozen=True)
class Objects:
    """The objects shown in each frame.

    Args:
        count: number in every frame.
        change_every: frames after which all are replaced by others elsewhere; None keeps them throughout.
    """

    count: int
    change_every: int | None = None

    def identities(self, frame: int) -> Any:
        """(count,) int64 identities of the objects in a frame."""
        first = 0 if self.change_every is None else frame // self.change_every * self.count
        return np.arange(first, first + self.count)


def boxes_of(identities: Any) -> Any:
    """(n, 4) xyxy, fractions of the padded frame; identities beyond the number of places wrap round."""
    places = identities % (COLUMNS * ROWS)
    corners = np.stack([places % COLUMNS / COLUMNS, places // COLUMNS / ROWS], axis=1)
    return np.concatenate([corners, corners + FILL / np.array([COLUMNS, ROWS])], axis=1).astype(np.float32)


def embeddings_of(identities: Any, width: int) -> Any:
    """(n, width) unit-length embeddings, a different one for every identity."""
    return np.stack([_embedding(int(identity), width) for identity in identities])


@cache
def _embedding(identity: int, width: int) -> Any:
    """(width,); cached, so that generating it adds no time to the measured frames."""
    row = np.random.default_rng(identity).standard_normal(width)
    return (row / np.linalg.norm(row)).astype(np.float32)


class _Injected(DelegatingBackend):
    """A `Backend` that runs another one and replaces its outputs."""

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
    """The frame graph. It counts its calls, so frames come in order only in mode latency."""

    def __init__(self, graph: Backend, config: ModelConfig, objects: Objects) -> None:
        super().__init__(graph, config)
        self._objects, self._frame = objects, 0

    def made_up(self, inputs: Mapping[str, Value]) -> dict[str, Any]:
        identities = self._objects.identities(self._frame)
        self._frame += 1
        scores = np.zeros((len(identities), self._config.num_classes - 1), np.float32)
        scores[:, 0] = SCORE
        # The anchor index passes the identity on to the instance graph; every one of these anchors exists.
        return {"boxes": boxes_of(identities), "class_scores": scores, "anchor_index": identities % (COLUMNS * ROWS),
                "centerness": np.full(len(identities), CENTERNESS, np.float32),
                "num_candidates": np.int64(len(identities)), **self._rows(identities)}


class InjectedInstances(_Injected):
    """The instance graph."""

    def made_up(self, inputs: Mapping[str, Value]) -> dict[str, Any]:
        return self._rows(inputs["anchor_index"])


class InjectedTemporal(_Injected):
    """The temporal graph, with zero motion."""

    def made_up(self, inputs: Mapping[str, Value]) -> dict[str, Any]:
        count = len(inputs["boxes"])
        return {"box_deltas": np.zeros((count, 4), np.float32),
                "coeff_deltas": np.zeros((count, self._config.num_prototypes), np.float32)}


def inject(bundle: Bundle, objects: Objects) -> Bundle:
    """The bundle with these objects in every frame; the sequence starts when it is first run."""
    config = bundle.description.model
    return replace(bundle, frame=InjectedFrame(bundle.frame, config, objects),
                   instances=None if bundle.instances is None else InjectedInstances(bundle.instances, config),
                   temporal=None if bundle.temporal is None else InjectedTemporal(bundle.temporal, config))
