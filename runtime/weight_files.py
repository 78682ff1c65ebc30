"""Weights of graphs in OpenVINO, in files that the system may take out of memory."""
from __future__ import annotations

import mmap
import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .openvino_constants import floats

ROOM = 1 << 30  # bytes that must be free where files are written, so that other programs never run out


class WeightFiles:
    """The weights of a model in its own file, and constants made from them in temporary files without a name.

    OpenVINO's CPU plugin packs the constants of a graph for its kernels and keeps the originals, although it reads them
    only when it packs: on compiling, and for the first inputs of a size. From a file they can leave memory in between.
    Each file takes a file descriptor. The temporary ones vanish with this object or with the process. They lie in the
    folder that TMPDIR names, or in /var/tmp, which is meant for large files and, unlike /tmp, is rarely kept in memory.
    Constants stay in memory where less than `ROOM` is free or files cannot be written, and all weights on systems other
    than Linux.

    Models read here or made from these constants, and what is compiled from them, must not be used after this object is
    gone. If the disk fails to return what is in the files, or a model's own file is cut short, reading them ends the
    process.
    """

    def __init__(self) -> None:
        self._maps: list[mmap.mmap] = []

    def model(self, core: Any, graph: Path) -> Any:
        """An `openvino.Model` as by `core.read_model(graph)`, with its weights in the .bin file beside the graph.

        OpenVINO maps the file too, but what it has read stays in this process's memory as long as the model.

        Raises:
            OSError: a file cannot be read.
            RuntimeError, ValueError: the files are not a model.
        """
        import openvino

        if sys.platform != "linux":
            return core.read_model(graph)
        text = graph.read_text(encoding="utf-8")  # first, so that its description is never newer than the weights
        with open(graph.with_suffix(".bin"), "rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._maps.append(mapped)
        weights = openvino.Tensor(np.frombuffer(mapped, np.uint8), [len(mapped)], openvino.Type.u8)
        return core.read_model(text, weights)

    def constant(self, values: ArrayLike, precision: str) -> Any:
        """A constant node as by `openvino_constants.floats`, with its values in a file if possible."""
        import openvino
        from openvino import opset13 as op

        node = floats(values, precision)
        if sys.platform != "linux":
            return node
        folder = os.environ.get("TMPDIR") or "/var/tmp"  # noqa: S108 - files there have no name
        try:
            if shutil.disk_usage(folder).free < ROOM:
                return node
            mapped = _written(np.asarray(node.data), folder)
        except OSError:  # no such folder, not writable, a quota, too many files open
            return node
        self._maps.append(mapped)
        tensor = openvino.Tensor(np.frombuffer(mapped, np.uint8), node.get_output_shape(0), node.get_element_type())
        return op.constant(tensor, shared_memory=True)

    def release(self) -> None:
        """Take the weights out of this process's memory, in less than a millisecond.

        What reads them again gets them from the files.
        """
        for mapped in self._maps:
            with suppress(OSError):  # the process has locked its memory
                mapped.madvise(mmap.MADV_DONTNEED)


def _written(values: NDArray[Any], folder: str) -> mmap.mmap:
    with TemporaryFile(dir=folder) as file:
        # Written, not copied into a mapping: a full disk would then end the process instead of raising an error.
        file.write(values.view(np.uint8).data)
        file.flush()
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
