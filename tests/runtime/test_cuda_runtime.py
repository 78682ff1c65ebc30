"""CUDA's runtime, by a stand-in for its library: order of work, captures, errors, and what becomes of it all."""
from __future__ import annotations

import ctypes
import gc
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cuda_runtime import FakeCudaRuntime

import stmask_deploy
from stmask_deploy.runtime import cuda_runtime as module
from stmask_deploy.runtime.backends import TensorSpec
from stmask_deploy.runtime.cuda_runtime import CudaError, CudaEvent, CudaRuntime, CudaStream, cuda_runtime
from stmask_deploy.runtime.pinned_memory import pinned_memory


@pytest.fixture
def library() -> FakeCudaRuntime:
    return FakeCudaRuntime()


@pytest.fixture
def stream(library: FakeCudaRuntime) -> CudaStream:
    return CudaStream(CudaRuntime(library))


def copy(stream: CudaStream, to: Any, source: Any) -> None:
    stream.copy(to.ctypes.data, source.ctypes.data, source.nbytes)


def test_an_error_is_told_and_forgotten_by_the_library(library: FakeCudaRuntime) -> None:
    library.fails["cudaStreamCreateWithFlags"] = 46
    with pytest.raises(CudaError, match="^cudaStreamCreateWithFlags: CUDA failure 46: error 46$"):
        CudaStream(CudaRuntime(library))
    assert library.last_error == 0


def test_memory_of_the_host(library: FakeCudaRuntime) -> None:
    runtime = CudaRuntime(library)
    assert runtime.host_memory(12) == library.addresses[0] and (library.sizes, library.flags) == ([12], [1])
    library.fails["cudaHostAlloc"] = 2
    assert runtime.host_memory(12) is None and library.last_error == 0


def test_work_is_done_in_its_order_and_events_occur_between(library: FakeCudaRuntime, stream: CudaStream) -> None:
    event = CudaEvent(CudaRuntime(library))
    first, second, third = np.arange(4), np.zeros(4, int), np.zeros(4, int)
    copy(stream, second, first)
    stream.record(event)
    copy(stream, third, second)
    assert not second.any()  # nobody has waited
    event.wait()
    assert second.tolist() == [0, 1, 2, 3] and not third.any()
    stream.wait()
    assert third.tolist() == [0, 1, 2, 3]


def test_an_event_is_used_again(library: FakeCudaRuntime, stream: CudaStream) -> None:
    event, to = CudaEvent(CudaRuntime(library)), np.zeros(4, int)
    for level in (1, 2):
        source = np.full(4, level)
        copy(stream, to, source)
        stream.record(event)
        event.wait()
        assert to.tolist() == source.tolist()


def test_what_is_captured_is_done_by_every_launch_and_not_before(library: FakeCudaRuntime, stream: CudaStream) -> None:
    done: list[int] = []
    graph = stream.capture(lambda: library.add(lambda: done.append(len(done))))
    stream.wait()
    assert done == [] and library.destroyed == ["graph"]
    for _ in range(3):
        stream.launch(graph)
    assert done == []
    stream.wait()
    assert done == [0, 1, 2]


def test_a_capture_that_fails_leaves_the_stream_usable(library: FakeCudaRuntime, stream: CudaStream) -> None:
    def fail() -> None:
        raise KeyError("why")

    for ends in ({}, {"cudaStreamEndCapture": 901}):
        library.fails = ends
        with pytest.raises(KeyError, match="why"):
            stream.capture(fail)
        library.fails = {}
        if not ends:  # the stand-in's capture would go on
            stream.launch(stream.capture(lambda: None))


@pytest.mark.parametrize("name", ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate",
                                  "cudaGraphGetNodes", "cudaGraphNodeGetType"])
def test_what_cannot_be_captured_is_told(library: FakeCudaRuntime, stream: CudaStream, name: str) -> None:
    library.fails[name] = 900
    with pytest.raises(CudaError, match=f"{name}: CUDA failure 900"):
        stream.capture(lambda: None)


def test_calls_of_the_host_are_refused(library: FakeCudaRuntime, stream: CudaStream) -> None:
    """Their arguments are valid only once: they would be used after they are freed."""
    library.node_kinds = [0, 0, 3, 1]
    with pytest.raises(CudaError, match="functions of the host, which cannot be repeated"):
        stream.capture(lambda: None)
    assert library.destroyed == ["graph"]
    library.node_kinds = []
    assert stream.capture(lambda: None).handle.value


def test_nothing_is_left_and_streams_are_used_again(library: FakeCudaRuntime) -> None:
    runtime = CudaRuntime(library)
    stream, other = CudaStream(runtime), CudaStream(runtime)
    address = stream.address
    assert address and other.address not in (0, address)
    held = [stream.capture(lambda: None), CudaEvent(runtime)]
    del stream
    gc.collect()
    assert CudaStream(runtime).address == address and library.num_streams == 2
    held.clear()
    gc.collect()
    assert sorted(library.destroyed) == ["event", "executable", "graph"]


def test_after_a_lasting_failure_nothing_is_printed(library: FakeCudaRuntime, stream: CudaStream,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    printed: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", printed.append)
    monkeypatch.setattr(sys, "excepthook", lambda *error: printed.append(error))
    held = [stream.capture(lambda: None), CudaEvent(CudaRuntime(library))]
    library.fails = {"cudaGraphExecDestroy": 700, "cudaEventDestroy": 700}
    held.clear()
    gc.collect()
    assert not printed and library.destroyed == ["graph"] and library.last_error == 0


def test_a_capture_that_is_interrupted_as_it_begins_is_ended(library: FakeCudaRuntime, stream: CudaStream,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    runtime_call = CudaRuntime.call

    def interrupted(self: CudaRuntime, name: str, *args: Any) -> None:
        runtime_call(self, name, *args)
        if name == "cudaStreamBeginCapture":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CudaRuntime, "call", interrupted)
        with pytest.raises(KeyboardInterrupt):
            stream.capture(lambda: None)
    assert not library.is_capturing
    copy(stream, np.zeros(4), np.zeros(4))  # would not be permitted


def test_the_library_of_the_version_that_onnxruntime_was_built_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load(name: str) -> FakeCudaRuntime:
        asked.append(name)
        if "12" in name:
            raise OSError("libcudart.so.12: cannot open shared object file")
        return FakeCudaRuntime()

    monkeypatch.setattr(ctypes, "CDLL", load)
    for platform in ("linux", "win32"):
        monkeypatch.setattr(module, "sys", SimpleNamespace(platform=platform))
        module._loaded.cache_clear()
        assert cuda_runtime("12.8") is None and pinned_memory("12.8") is None
        runtime = cuda_runtime("13.0")
        assert runtime is not None and runtime.host_memory(3) is not None
        assert cuda_runtime("13.0") is runtime
        assert runtime._library.cudaGetErrorString.restype is ctypes.c_char_p  # otherwise addresses are cut off
    module._loaded.cache_clear()
    assert asked == ["libcudart.so.12", "libcudart.so.13", "cudart64_12.dll", "cudart64_13.dll"]


def test_there_is_none_without_cuda() -> None:
    assert cuda_runtime("") is None
    assert cuda_runtime("99.0") is None


def test_threads_that_ask_at_once_get_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(name: str) -> FakeCudaRuntime:
        time.sleep(0.05)
        return FakeCudaRuntime()

    monkeypatch.setattr(ctypes, "CDLL", load)
    for function in (cuda_runtime, pinned_memory):
        module._loaded.cache_clear()
        with ThreadPoolExecutor(3) as pool:
            found = list(pool.map(function, ["13.0"] * 3))
        assert found[0] is not None and found[0] is found[1] is found[2]
    module._loaded.cache_clear()


@pytest.mark.gpu
def test_a_gpu_copies_captured_or_not() -> None:
    import onnxruntime

    stmask_deploy.load(device="cuda")  # loads the library
    runtime = cuda_runtime(onnxruntime.cuda_version)
    memory = pinned_memory(onnxruntime.cuda_version)
    assert runtime is not None and memory is not None
    stream, event = CudaStream(runtime), CudaEvent(runtime)
    source, to = np.arange(1000.0), np.zeros(1000)
    device = onnxruntime.OrtValue.ortvalue_from_shape_and_type([1000], np.float64, "cuda", 0)

    def there_and_back() -> None:
        stream.copy(device.data_ptr(), source.ctypes.data, source.nbytes)
        stream.copy(to.ctypes.data, device.data_ptr(), source.nbytes)

    there_and_back()
    stream.record(event)
    event.wait()
    assert np.array_equal(source, to)
    source, to = (memory.empty(TensorSpec("float64", (1000,))) for _ in range(2))
    assert source is not None and to is not None
    graph = stream.capture(there_and_back)
    for level in (3.0, 4.0):
        source[:], to[:] = level, 0
        stream.launch(graph)
        stream.wait()
        assert (to == level).all()
    with pytest.raises(CudaError, match="cudaMemcpyAsync: CUDA failure 1: invalid argument"):
        stream.copy(0, source.ctypes.data, source.nbytes)
    stream.wait()
