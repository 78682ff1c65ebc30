"""The functions of CUDA's runtime library that ONNX Runtime's Python interface lacks, called through `ctypes`."""
from __future__ import annotations

import ctypes
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from ctypes import byref, c_int, c_size_t, c_uint, c_ulonglong, c_void_p
from functools import cache
from threading import Lock
from typing import Any

_PORTABLE = 1  # cudaHostAllocPortable: page-locked for all threads and GPUs
_NON_BLOCKING = 1  # cudaStreamNonBlocking: no implicit order with the default stream
_RELAXED = 2  # cudaStreamCaptureModeRelaxed: GPU activity of other threads does not break the capture
_DEFAULT = 4  # cudaMemcpyDefault: the direction follows from the addresses
_NO_TIMING = 2  # cudaEventDisableTiming
_HOST_NODE = 0x03  # cudaGraphNodeTypeHost
_LOADING = Lock()


class CudaError(RuntimeError):
    """A function of CUDA's runtime failed."""


class CudaRuntime:
    """CUDA's runtime library. Calls release the GIL.

    Args:
        library: loaded with `ctypes`.
    """

    def __init__(self, library: Any) -> None:
        self._library = library
        self._idle_streams: list[c_void_p] = []

    def call(self, name: str, *args: Any) -> None:
        """Call a function that returns an error code.

        Raises:
            CudaError: the code is not 0.
        """
        code = getattr(self._library, name)(*args)
        if code:
            self._library.cudaGetLastError()  # clears the error, which the next caller would take for its own
            text = self._library.cudaGetErrorString(code).decode(errors="replace")
            raise CudaError(f"{name}: CUDA failure {code}: {text}")

    def check_device(self) -> None:
        """Raise CudaError if there is no GPU, or no driver for this library."""
        count = c_int()
        self.call("cudaGetDeviceCount", byref(count))
        if not count.value:
            raise CudaError("there is no device")

    def host_memory(self, size: int) -> int | None:
        """The address of `size` new bytes of page-locked memory, which cannot be freed; None if there are none left."""
        address = c_void_p()
        try:
            self.call("cudaHostAlloc", byref(address), c_size_t(size), c_uint(_PORTABLE))
        except CudaError:
            return None
        return address.value


class CudaStream:
    """A queue of work for the GPU, which executes it in the order of these calls. Not thread-safe.

    None of them waits for the GPU, except copies from or to memory that is not page-locked.
    """

    def __init__(self, runtime: CudaRuntime) -> None:
        self._runtime = runtime
        idle = runtime._idle_streams
        try:
            self._handle = idle.pop()
        except IndexError:
            self._handle = c_void_p()
            runtime.call("cudaStreamCreateWithFlags", byref(self._handle), c_uint(_NON_BLOCKING))
        # Reused, not destroyed: a session that was opened for the stream may be freed later.
        weakref.finalize(self, idle.append, self._handle).atexit = False

    @property
    def address(self) -> int:
        """The stream as other libraries know it."""
        return self._handle.value or 0

    def copy(self, to: int, source: int, size: int) -> None:
        """Copy `size` bytes between addresses of the host or the device."""
        self._runtime.call("cudaMemcpyAsync", c_void_p(to), c_void_p(source), c_size_t(size), c_int(_DEFAULT),
                           self._handle)

    def launch(self, graph: CudaGraph) -> None:
        """Launch everything that was captured."""
        self._runtime.call("cudaGraphLaunch", graph.handle, self._handle)

    def record(self, event: CudaEvent) -> None:
        """Let `event` occur once all the work so far is done."""
        self._runtime.call("cudaEventRecord", event.handle, self._handle)

    def wait(self) -> None:
        """Wait until all work is done."""
        self._runtime.call("cudaStreamSynchronize", self._handle)

    def capture(self, work: Callable[[], object]) -> CudaGraph:
        """Capture what `work` gives this stream to do; nothing of it is done.

        Raises:
            CudaError: it cannot be captured.
        """
        captured = c_void_p()
        try:
            self._runtime.call("cudaStreamBeginCapture", self._handle, c_int(_RELAXED))
            work()
        except BaseException:
            with suppress(CudaError):  # says only that something failed before
                self._runtime.call("cudaStreamEndCapture", self._handle, byref(captured))
            raise
        self._runtime.call("cudaStreamEndCapture", self._handle, byref(captured))
        try:
            return CudaGraph(self._runtime, captured)
        finally:
            self._runtime.call("cudaGraphDestroy", captured)


class CudaGraph:
    """Captured work, ready to be launched any number of times.

    Args:
        captured: a `cudaGraph_t`.

    Raises:
        CudaError: it cannot be launched more than once.
    """

    def __init__(self, runtime: CudaRuntime, captured: c_void_p) -> None:
        if _HOST_NODE in _node_kinds(runtime, captured):
            # They are given pointers that are valid only once.
            raise CudaError("the graph needs functions of the host, which cannot be repeated")
        self.handle = c_void_p()  # cudaGraphExec_t
        runtime.call("cudaGraphInstantiate", byref(self.handle), captured, c_ulonglong(0))
        weakref.finalize(self, _destroy, runtime, "cudaGraphExecDestroy", self.handle).atexit = False


class CudaEvent:
    """A point in the work of a stream."""

    def __init__(self, runtime: CudaRuntime) -> None:
        self._runtime = runtime
        self.handle = c_void_p()
        runtime.call("cudaEventCreateWithFlags", byref(self.handle), c_uint(_NO_TIMING))
        weakref.finalize(self, _destroy, runtime, "cudaEventDestroy", self.handle).atexit = False

    def wait(self) -> None:
        """Wait until it occurs."""
        self._runtime.call("cudaEventSynchronize", self.handle)


def _destroy(runtime: CudaRuntime, name: str, handle: c_void_p) -> None:
    with suppress(CudaError):  # after a lasting failure, which was reported by what met it first
        runtime.call(name, handle)


def cuda_runtime(version: str) -> CudaRuntime | None:
    """The process's CUDA runtime; None if it cannot be loaded.

    Args:
        version: CUDA version of ONNX Runtime, whose provider has already loaded the library; empty for none.
    """
    with _LOADING:  # so that concurrent threads get the same object
        return _loaded(version.partition(".")[0])


@cache
def _loaded(major: str) -> CudaRuntime | None:
    if not major:
        return None
    try:
        library = ctypes.CDLL(f"cudart64_{major}.dll" if sys.platform == "win32" else f"libcudart.so.{major}")
    except OSError:
        return None
    library.cudaGetErrorString.restype = ctypes.c_char_p
    return CudaRuntime(library)


def _node_kinds(runtime: CudaRuntime, captured: c_void_p) -> set[int]:
    """Kinds of the captured operations (`cudaGraphNodeType`)."""
    count = c_size_t()
    runtime.call("cudaGraphGetNodes", captured, None, byref(count))
    nodes = (c_void_p * count.value)()
    runtime.call("cudaGraphGetNodes", captured, nodes, byref(count))
    kinds = set()
    for node in nodes:
        kind = c_int()
        runtime.call("cudaGraphNodeGetType", c_void_p(node), byref(kind))
        kinds.add(kind.value)
    return kinds
