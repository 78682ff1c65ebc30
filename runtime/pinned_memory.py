"""Memory of the host that a GPU reads and writes by itself: page-locked, also called pinned."""
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
# Bytes of a value. Copying a smaller one costs a call and hardly more; and whoever reads results may keep it for long.
LARGE = 1 << 16
_PORTABLE = 1  # cudaHostAllocPortable: locked for every thread and GPU
_LOADING = Lock()


class PinnedMemory:
    """Arrays in page-locked memory. A block of it is used again once no array lies in it any more.

    Copies between a GPU and ordinary memory go through a buffer of the driver's, piece by piece. Blocks are never
    freed: that waits for all that a GPU does, and spoils what is being recorded, as making one does.

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
        """An array of any values; None where `spec` has open sizes or no numbers, or no such memory is left."""
        size = num_bytes(spec)
        if not size or np.dtype(spec.dtype).hasobject:
            return None
        with self._lock:
            found = self._take(size)
        if found is None:
            return None
        address, block_size = found
        block = (ctypes.c_ubyte * size).from_address(address)
        # Every array that lies in it holds it. Whoever collects garbage may hold the lock; appending needs none.
        weakref.finalize(block, self._free[block_size].append, address).atexit = False
        return np.ndarray([side or 0 for side in spec.shape], spec.dtype, memoryview(block))

    def _take(self, size: int) -> tuple[int, int] | None:
        """Address and size of a block that nobody uses: one of that size, a new one, or else a larger one."""
        if self._free[size]:
            return self._free[size].pop(), size
        if size <= self._left:
            address = ctypes.c_void_p()
            if not self._library.cudaHostAlloc(ctypes.byref(address), ctypes.c_size_t(size), ctypes.c_uint(_PORTABLE)):
                self._left -= size
                return address.value or 0, size
            self._library.cudaGetLastError()  # or whoever asks next takes the failure for his own
            self._left = 0
        larger = min((other for other, free in self._free.items() if free and other > size), default=None)
        return None if larger is None else (self._free[larger].pop(), larger)


def pinned_memory(cuda_version: str) -> PinnedMemory | None:
    """The process's page-locked memory; None where CUDA's runtime cannot be loaded.

    Args:
        cuda_version: that ONNX Runtime was built for, whose provider has loaded that runtime; empty for none.
    """
    with _LOADING:  # or threads that ask at the same time get one each
        return _loaded(cuda_version.partition(".")[0])


@cache
def _loaded(major: str) -> PinnedMemory | None:
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


def is_large(spec: TensorSpec) -> bool:
    """Whether a value is worth page-locked memory, and a copy of its own."""
    return num_bytes(spec) >= LARGE
