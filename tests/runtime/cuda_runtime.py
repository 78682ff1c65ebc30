"""A stand-in for CUDA's runtime library: the same calls, in ordinary memory."""
from __future__ import annotations

import ctypes
from typing import Any


class FakeCudaRuntime:
    """Notes what it is asked for.

    Args:
        num_blocks: that it gives before it is out of memory.
    """

    def __init__(self, num_blocks: int = 1000) -> None:
        self.sizes: list[int] = []
        self.flags: list[int] = []
        self.num_calls = 0
        self.last_error = 0
        self._num_blocks = num_blocks
        self._buffers: list[Any] = []

    @property
    def addresses(self) -> list[int]:
        """Where the blocks begin."""
        return [ctypes.addressof(buffer) for buffer in self._buffers]

    def cudaHostAlloc(self, address: Any, size: ctypes.c_size_t, flags: ctypes.c_uint) -> int:
        self.num_calls += 1
        if len(self._buffers) == self._num_blocks:
            self.last_error = 2
            return 2  # cudaErrorMemoryAllocation
        self._buffers.append((ctypes.c_ubyte * size.value)())
        address._obj.value = ctypes.addressof(self._buffers[-1])
        self.sizes.append(size.value)
        self.flags.append(flags.value)
        return 0

    def cudaGetLastError(self) -> int:
        error, self.last_error = self.last_error, 0
        return error
