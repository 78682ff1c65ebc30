"""What the stages of the runtime exchange: frozen dataclasses of NumPy arrays.

Per-frame data (maps) and per-instance data (rows) are kept apart, so rows can be sliced. An empty result has zero rows
and every field. Arrays are float32 unless noted otherwise.
"""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
IntArray = NDArray[np.int64]

RowsT = TypeVar("RowsT", bound="Rows")


class Rows:
    """Base of the dataclasses whose fields are parallel arrays, one row per instance."""

    def __len__(self) -> int:
        return len(next(iter(vars(self).values())))

    def __getitem__(self: RowsT, rows: Any) -> RowsT:
        """The rows selected by a slice, a mask or an index array, as a new object."""
        return type(self)(**{name: column[rows] for name, column in vars(self).items()})

    def where(self: RowsT, condition: NDArray[np.bool_]) -> RowsT:
        """The rows for which `condition` holds; nothing is copied if it holds for all."""
        return self if condition.all() else self[condition]

    def replace(self: RowsT, **columns: Any) -> RowsT:
        """A copy with some columns replaced."""
        return type(self)(**{**vars(self), **columns})

    @classmethod
    def concat(cls: type[RowsT], parts: Sequence[RowsT]) -> RowsT:
        """The rows of all parts, in order. Needs at least one part, which may be empty."""
        columns = {name: [getattr(part, name) for part in parts] for name in vars(parts[0])}
        return cls(**{name: type(column[0]).concat(column) if isinstance(column[0], Rows) else np.concatenate(column)
                      for name, column in columns.items()})

    def _check(self, ranks: dict[str, int]) -> None:
        count = len(self)
        for name, column in vars(self).items():
            shape = (len(column),) if isinstance(column, Rows) else column.shape
            if len(shape) != ranks.get(name, 1) or shape[0] != count:
                want = ", ".join([str(count)] + ["..."] * (ranks.get(name, 1) - 1))
                raise ValueError(f"{type(self).__name__}.{name}: expected shape ({want}), got {shape}")


@dataclass(frozen=True)
class FrameFeatures:
    """Maps of one frame. The temporal graph reads those of two consecutive frames."""

    prototypes: Array | None  # (Hm, Wm, P) after ReLU; None where they are computed from `p3`, inside boxes only
    p3: Array | None  # (1, F, Hm / 2, Wm / 2) the level they are computed from; None unless they are
    fpn: Array  # (1, F, h, w) the pyramid level the temporal graph reads
    temporal: Array  # (1, T, h, w) the shared head map of that level


@dataclass(frozen=True)
class Candidates(Rows):
    """Anchors whose highest foreground probability exceeds the candidate threshold, best score first.

    The last two columns are empty, (n, 0), until the instance graph fills them for the rows kept.
    """

    boxes: Array  # (n, 4) xyxy, fractions of the padded frame
    class_scores: Array  # (n, C) foreground probabilities
    centerness: Array  # (n,) in (-1, 1)
    mask_coeffs: Array  # (n, P) before tanh
    embeddings: Array  # (n, E) unit length

    def __post_init__(self) -> None:
        self._check({"boxes": 2, "class_scores": 2, "mask_coeffs": 2, "embeddings": 2})


@dataclass(frozen=True)
class Instances(Rows):
    """Detected or propagated objects of one frame."""

    boxes: Array  # (n, 4) xyxy, fractions of the padded frame
    scores: Array  # (n,)
    class_ids: IntArray  # (n,) int64, 1-based
    centerness: Array  # (n,)
    mask_coeffs: Array  # (n, P) before tanh
    embeddings: Array  # (n, E)
    masks: Array  # (n, Hm, Wm) in [0, 1] at prototype size, zero outside the box

    def __post_init__(self) -> None:
        self._check({"boxes": 2, "mask_coeffs": 2, "embeddings": 2, "masks": 3})

    @classmethod
    def empty(cls, num_prototypes: int, embedding_dim: int, mask_hw: tuple[int, int]) -> Instances:
        """Zero rows, every field present with its true rank."""
        def zeros(*shape: int) -> Array:
            return np.zeros((0, *shape), np.float32)

        return cls(zeros(4), zeros(), np.zeros(0, np.int64), zeros(), zeros(num_prototypes), zeros(embedding_dim),
                   zeros(*mask_hw))


@dataclass(frozen=True)
class TrackedInstances(Rows):
    """Instances with identities: a tracker's state, or the part of it shown in one frame."""

    instances: Instances
    ids: IntArray  # (n,) int64
    ages: IntArray  # (n,) int64, frames since last detected; 0 if detected in this frame, otherwise propagated

    def __post_init__(self) -> None:
        self._check({})
