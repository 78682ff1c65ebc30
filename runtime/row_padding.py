"""Padding to few numbers of rows, since libraries prepare and keep something for every number that occurs."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .backends import TensorSpec, Value


class RowPadding:
    """Pads the inputs of a graph that may have any number of rows, and removes these rows from its outputs.

    Rows of zeros are added: boxes without area, or anchor 0. They change no other row, except by rounding, since a
    library may order sums by the number of rows.

    Args:
        inputs, outputs: of the graph. Those whose first axis has any size are padded.
        rounded: the number of rows to pad a number of rows to.
    """

    def __init__(self, inputs: Mapping[str, TensorSpec], outputs: Mapping[str, TensorSpec],
                 rounded: Callable[[int], int]) -> None:
        self._inputs, self._outputs = ({name for name, spec in specs.items() if spec.shape[:1] == (None,)}
                                       for specs in (inputs, outputs))
        self._rounded = rounded

    def padded(self, inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Values for every input of the graph, padded; those that need no more rows are passed on, not copied."""
        return {name: self._padded(value) if name in self._inputs else value for name, value in inputs.items()}

    def _padded(self, rows: Any) -> Any:
        added = self._rounded(len(rows)) - len(rows)
        if not added:
            return rows
        rows = np.asarray(rows)
        return np.concatenate([rows, np.zeros((added, *rows.shape[1:]), rows.dtype)])

    def cut(self, outputs: Mapping[str, Value], inputs: Mapping[str, Value]) -> dict[str, Value]:
        """Outputs of a run on padded inputs, with the rows that `inputs` had before."""
        if not self._inputs:
            return dict(outputs)
        count = max(len(inputs[name]) for name in self._inputs)
        return {name: value[:count] if name in self._outputs else value for name, value in outputs.items()}


def power_of_two(rows: int) -> int:
    """The smallest power of two that is at least `rows`; 1 for none."""
    return 1 << max(rows - 1, 0).bit_length()


def within_an_eighth(rows: int) -> int:
    """The next of the numbers 0, 1, ... 16, 18, ... 32, 36, ... 64, 72, ...: at most an eighth more than `rows`."""
    step = max(power_of_two(rows) // 16, 1)
    return -(-rows // step) * step
