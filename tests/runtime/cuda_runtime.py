"""A stand-in for CUDA's runtime library: the same calls, in ordinary memory.

Like a GPU, it works later: what is put into a stream is done only when somebody waits for it.
"""
from __future__ import annotations

import ctypes
import itertools
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any

NOT_PERMITTED, NOT_CAPTURING = 900, 401


class FakeCudaRuntime:
    """Notes what it is asked for. The calls of one that is not idle are done by whoever waits.

    Args:
        num_blocks: that it gives before it is out of memory.

    Attributes:
        fails: name of a function -> its error code from now on.
        node_kinds: of everything that is captured.
    """

    def __init__(self, num_blocks: int = 10000) -> None:
        self.sizes: list[int] = []
        self.flags: list[int] = []
        self.num_calls = 0
        self.last_error = 0
        self.fails: dict[str, int] = {}
        self.node_kinds = [0, 1, 2]
        self.destroyed: list[str] = []
        self.num_devices = 1
        self.num_streams = 0
        self.launched: list[int] = []
        self._num_blocks = num_blocks
        self._buffers: list[Any] = []
        self._numbers = itertools.count(1)
        self._lock = threading.RLock()
        self._work: defaultdict[int, list[Callable[[], None]]] = defaultdict(list)  # of each stream, not done yet
        self._captures: dict[int, list[Callable[[], None]]] = {}  # by stream
        self._capturing: dict[int, int] = {}  # thread -> its stream
        self._graphs: dict[int, list[Callable[[], None]]] = {}
        self._events: dict[int, tuple[int, list[bool]]] = {}  # stream, and whether it has occurred
        # A function can be given a `restype`, a method cannot.
        self.cudaGetErrorString = lambda code: f"error {code}".encode()

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("cuda") and name in self.fails:
            self.last_error = self.fails[name]
            return lambda *args: self.fails[name]
        return super().__getattribute__(name)

    @property
    def addresses(self) -> list[int]:
        """Where the blocks begin."""
        return [ctypes.addressof(buffer) for buffer in self._buffers]

    @property
    def is_capturing(self) -> bool:
        """Whether this thread captures."""
        return threading.get_ident() in self._capturing

    @property
    def is_idle(self) -> bool:
        """Whether no work is left."""
        return not any(self._work.values())

    def add(self, work: Callable[[], None]) -> None:
        """Put something into the stream that this thread captures."""
        self._captures[self._capturing[threading.get_ident()]].append(work)

    def cudaGetDeviceCount(self, count: Any) -> int:
        count._obj.value = self.num_devices
        return 0

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

    def cudaStreamCreateWithFlags(self, stream: Any, flags: ctypes.c_uint) -> int:
        assert flags.value == 1  # otherwise work in the default stream, of anyone, would wait for it
        self.num_streams += 1
        return self._create(stream)

    def cudaEventCreateWithFlags(self, event: Any, flags: ctypes.c_uint) -> int:
        assert flags.value == 2
        return self._create(event)

    def cudaEventDestroy(self, event: Any) -> int:
        self.destroyed.append("event")
        return 0

    def cudaMemcpyAsync(self, to: Any, source: Any, size: Any, kind: Any, stream: Any) -> int:
        assert kind.value == 4  # both directions occur
        return self._put(stream, lambda: ctypes.memmove(to.value, source.value, size.value))

    def cudaEventRecord(self, event: Any, stream: Any) -> int:
        occurred: list[bool] = []
        self._events[event.value] = stream.value, occurred
        return self._put(stream, lambda: occurred.append(True))

    def cudaEventSynchronize(self, event: Any) -> int:
        stream, occurred = self._events[event.value]
        with self._lock:
            while not occurred:
                self._work[stream].pop(0)()
        return 0

    def cudaStreamSynchronize(self, stream: Any) -> int:
        with self._lock:
            while self._work[stream.value]:
                self._work[stream.value].pop(0)()
        return 0

    def cudaStreamBeginCapture(self, stream: Any, mode: Any) -> int:
        assert mode.value == 2 and not self._work[stream.value]
        self._captures[stream.value] = []
        self._capturing[threading.get_ident()] = stream.value
        return 0

    def cudaStreamEndCapture(self, stream: Any, graph: Any) -> int:
        if threading.get_ident() not in self._capturing:
            return NOT_CAPTURING
        del self._capturing[threading.get_ident()]
        self._create(graph)
        self._graphs[graph._obj.value] = self._captures.pop(stream.value)
        return 0

    def cudaGraphGetNodes(self, graph: Any, nodes: Any, count: Any) -> int:
        if nodes is None:
            count._obj.value = len(self.node_kinds)
        else:
            nodes[:] = range(len(self.node_kinds))
        return 0

    def cudaGraphNodeGetType(self, node: Any, kind: Any) -> int:
        kind._obj.value = self.node_kinds[node.value or 0]
        return 0

    def cudaGraphInstantiate(self, executable: Any, graph: Any, flags: Any) -> int:
        self._create(executable)
        self._graphs[executable._obj.value] = self._graphs[graph.value]
        return 0

    def cudaGraphDestroy(self, graph: Any) -> int:
        del self._graphs[graph.value]
        self.destroyed.append("graph")
        return 0

    def cudaGraphExecDestroy(self, executable: Any) -> int:
        del self._graphs[executable.value]
        self.destroyed.append("executable")
        return 0

    def cudaGraphLaunch(self, executable: Any, stream: Any) -> int:
        self.launched.append(executable.value)
        for work in self._graphs[executable.value]:
            self._put(stream, work)
        return 0

    def _create(self, handle: Any) -> int:
        handle._obj.value = next(self._numbers)
        return 0

    def _put(self, stream: Any, work: Callable[[], object]) -> int:
        with self._lock:
            if stream.value in self._captures:
                return NOT_PERMITTED  # the tests have no use for captured copies
            self._work[stream.value].append(lambda: (work(), None)[1])
        return 0
