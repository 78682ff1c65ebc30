"""Memory of the host that a GPU copies into by itself: page-locked, also called pinned."""
from __future__ import annotations

import ctypes
import sys
import weakref
from collections import defaultdict
from functools import cache
from math import prod
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backends import TensorSpec

LIMIT = 64 << 20  # bytes of a process: some thirty frames' prototypes, of which a handful are in flight
_PORTABLE = 1  # cudaHostAllocPortable: locked for every thread and GPU


class PinnedMemory:
    """Arrays in page-locked memory. A block of it is used again once no array lies in it any more.

    Copies from a GPU into ordinary memory go through a buffer of the driver's, piece by piece. Blocks are never freed:
    that waits for all that a GPU does, and spoils what is being recorded.

    Args:
        library: CUDA's runtime, as `ctypes` loads it.
        limit: bytes of all blocks.
    """

    def __init__(self, library: Any, limit: int = LIMIT) -> None:
        self._library = library
        self._left = limit
        self._free: defaultdict[int, list[int]] = defaultdict(list)  # addresses, by size in bytes
        self._lock = Lock()

    def empty(self, spec: TensorSpec) -> NDArray[Any] | None:
        """An array of any values; None where `spec` has open sizes, or no such memory is left."""
        size = num_bytes(spec)
        address = self._take(size)
        if not address:
            return None
        block = (ctypes.c_ubyte * size).from_address(address)
        # Every array that lies in it holds it. Appending needs no lock, which whoever collects garbage may hold.
        weakref.finalize(block, self._free[size].append, address).atexit = False
        return np.ndarray([side or 0 for side in spec.shape], spec.dtype, memoryview(block))

    def _take(self, size: int) -> int:
        """The address of a block that nobody uses; 0 where there is none."""
        with self._lock:
            if self._free[size]:
                return self._free[size].pop()
            if not 0 < size <= self._left:
                return 0
            address = ctypes.c_void_p()
            if self._library.cudaHostAlloc(ctypes.byref(address), ctypes.c_size_t(size), ctypes.c_uint(_PORTABLE)):
                self._library.cudaGetLastError()  # or whoever asks next takes the failure for his own
                self._left = 0
                return 0
            self._left -= size
            return address.value or 0


@cache
def pinned_memory(cuda_version: str) -> PinnedMemory | None:
    """The process's page-locked memory; None where CUDA's runtime cannot be loaded.

    Args:
        cuda_version: that ONNX Runtime was built for, whose provider has loaded that runtime; empty for none.
    """
    major = cuda_version.partition(".")[0]
    if not major:
        return None
    name = f"cudart64_{major}.dll" if sys.platform == "win32" else f"libcudart.so.{major}"
    try:
        return PinnedMemory(ctypes.CDLL(name))
    except OSError:
        return None


def num_bytes(spec: TensorSpec) -> int:
    """The size of a value; 0 where one of its sides is open."""
    return prod(side or 0 for side in spec.shape) * np.dtype(spec.dtype).itemsize
