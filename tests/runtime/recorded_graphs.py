"""What the tests of recorded sessions share: tiny graphs opened as recordings, and values for them."""
from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
from tiny_bundles import SHAPES

from stmask_deploy.runtime.backends import Backend
from stmask_deploy.runtime.opening import open_backend

MAPS = ("prev_fpn", "fpn", "prev_temporal", "temporal")
MAP_VALUES = {name: np.full(SHAPES[name.removeprefix("prev_")], 0.4, np.float32) for name in MAPS}


def open_recorded(graph: Path) -> Backend:
    return open_backend("onnxruntime", graph, device="cuda-graph", threads=1)


def value_of(array: np.ndarray) -> onnxruntime.OrtValue:
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def picture(level: int) -> dict[str, np.ndarray]:
    return {"frame": np.full((1, 40, 64, 3), level, np.uint8)}


class Memory(str):
    """A name of a memory that can be told from others of the same memory."""
