"""Large constants of graphs in OpenVINO, in files that the system may take out of memory."""
from __future__ import annotations

import mmap
import os
import sys
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .openvino_constants import floats


class WeightFiles:
    """Constants in temporary files without a name, which vanish with this object or with the process.

    OpenVINO's CPU plugin packs the constants of a graph for its kernels and keeps the originals, although it reads them
    only when it packs: on compiling, and for the first inputs of a size. From a file they can leave memory in between.
    The files lie in the folder that TMPDIR names, or in /var/tmp, which is meant for large ones. Where they cannot be
    written, or on systems other than Linux, constants stay in memory.

    Models made from these constants, and what is compiled from them, must not be used after this object is gone.
    """

    def __init__(self) -> None:
        self._maps: list[mmap.mmap] = []

    def constant(self, values: ArrayLike, precision: str) -> Any:
        """A constant node as by `openvino_constants.floats`, with its values in a file if possible."""
        import openvino
        from openvino import opset13 as op

        node = floats(values, precision)
        if sys.platform != "linux":
            return node
        try:
            mapped = _written(np.asarray(node.data))
        except OSError:  # no such folder, not writable, no room
            return node
        self._maps.append(mapped)
        tensor = openvino.Tensor(np.frombuffer(mapped, np.uint8), node.get_output_shape(0), node.get_element_type())
        return op.constant(tensor, shared_memory=True)

    def release(self) -> None:
        """Take the constants out of this process's memory, in microseconds. They are read from the files if needed."""
        for mapped in self._maps:
            mapped.madvise(mmap.MADV_DONTNEED)


def _written(values: NDArray[Any]) -> mmap.mmap:
    with TemporaryFile(dir=os.environ.get("TMPDIR") or "/var/tmp") as file:  # noqa: S108 - it has no name
        # Written, not copied into a mapping: a full disk would then end the process instead of raising an error.
        file.write(values.view(np.uint8).data)
        file.flush()
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
