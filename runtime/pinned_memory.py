"""Page-locked (pinned) host memory, which a GPU accesses directly."""
from __future__ import annotations

import ctypes
import weakref
from collections import defaultdict
from functools import cache
from math import prod
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backends import TensorSpec
from .cuda_runtime import CudaRuntime, cuda_runtime

LIMIT = 64 << 20  # bytes per process: prototypes of about thirty frames, of which only a handful are in flight
# Minimum size in bytes of a large value. Smaller ones are copied fast anyway, and users may hold on to them for long.
LARGE = 1 << 16
_CREATING = Lock()


class PinnedMemory:
    """Arrays in page-locked memory, whose blocks are reused once no array refers to them.

    Copies between a GPU and pageable memory go through a driver buffer, piece by piece, while the caller waits. Blocks
    are never freed, since freeing waits for all work on the GPU.

    Args:
        runtime: where blocks come from.
        limit: total bytes of all blocks.
    """

    def __init__(self, runtime: CudaRuntime, limit: int = LIMIT) -> None:
        self._runtime = runtime
        self._left = limit
        self._free: defaultdict[int, list[int]] = defaultdict(list)  # addresses, by size in bytes
        self._lock = Lock()

    def empty(self, spec: TensorSpec) -> NDArray[Any] | None:
        """An uninitialised array; None for dynamic sizes, no elements or Python objects, or if no memory is left."""
        size = num_bytes(spec)
        if not size or np.dtype(spec.dtype).hasobject:
            return None
        with self._lock:
            found = self._take(size)
        if found is None:
            return None
        address, block_size = found
        block = (ctypes.c_ubyte * size).from_address(address)
        # All arrays in the block keep it alive. The finaliser may run while the lock is held; append needs no lock.
        weakref.finalize(block, self._free[block_size].append, address).atexit = False
        return np.ndarray([side or 0 for side in spec.shape], spec.dtype, memoryview(block))

    def _take(self, size: int) -> tuple[int, int] | None:
        """Address and size of a free block: one of this size, else a new one, else a larger one; None if there is none.
        """
        if self._free[size]:
            return self._free[size].pop(), size
        if size <= self._left:
            if address := self._runtime.host_memory(size):
                self._left -= size
                return address, size
            self._left = 0
        larger = min((other for other, free in self._free.items() if free and other > size), default=None)
        return None if larger is None else (self._free[larger].pop(), larger)


def pinned_memory(cuda_version: str) -> PinnedMemory | None:
    """The process-wide page-locked memory; None if the CUDA runtime cannot be loaded, see `cuda_runtime`."""
    with _CREATING:  # so that concurrent threads get the same object
        runtime = cuda_runtime(cuda_version)
        return None if runtime is None else _memory(runtime)


@cache
def _memory(runtime: CudaRuntime) -> PinnedMemory:
    return PinnedMemory(runtime)


def num_bytes(spec: TensorSpec) -> int:
    """Size of a value in bytes; 0 if one of its dimensions is dynamic."""
    return prod(side or 0 for side in spec.shape) * np.dtype(spec.dtype).itemsize


def is_large(spec: TensorSpec) -> bool:
    """Whether a value is worth page-locked memory and a separate copy."""
    return num_bytes(spec) >= LARGE
