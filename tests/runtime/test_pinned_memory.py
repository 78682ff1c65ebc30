"""Page-locked memory from a stand-in for CUDA's runtime: blocks are shared out, used again, and never used twice."""
from __future__ import annotations

import gc
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from cuda_runtime import FakeCudaRuntime

from stmask_deploy.runtime.backends import TensorSpec
from stmask_deploy.runtime.cuda_runtime import CudaRuntime
from stmask_deploy.runtime.pinned_memory import PinnedMemory, num_bytes

SPEC = TensorSpec("float32", (1, 3, 5))


def address(array: np.ndarray[Any, Any] | None) -> int:
    assert array is not None
    return int(array.ctypes.data)


def test_arrays_lie_in_locked_memory_and_not_in_each_other() -> None:
    library = FakeCudaRuntime()
    memory = PinnedMemory(CudaRuntime(library))
    specs = [SPEC, SPEC, TensorSpec("uint8", (7,)), TensorSpec("int64", (2, 2))]
    arrays = [memory.empty(spec) for spec in specs]
    for number, (array, spec) in enumerate(zip(arrays, specs, strict=True)):
        assert array is not None and (str(array.dtype), array.shape) == spec
        assert address(array) in library.addresses and array.flags.writeable and array.flags.c_contiguous
        array[:] = number
    assert [int(array.max()) for array in arrays if array is not None] == [0, 1, 2, 3]
    assert library.sizes == [60, 60, 7, 32] and set(library.flags) == {1}


def test_a_block_is_used_again_once_nothing_lies_in_it() -> None:
    library = FakeCudaRuntime()
    memory = PinnedMemory(CudaRuntime(library))
    array = memory.empty(SPEC)
    assert array is not None
    first, part = address(array), array[0, 1:, ::2]
    array[:] = 7
    del array
    gc.collect()
    other = memory.empty(SPEC)  # the part still lies in the first block
    assert other is not None and address(other) != first
    other[:] = 0
    assert (part == 7).all()
    del part
    gc.collect()
    again, more = memory.empty(SPEC), memory.empty(SPEC)
    assert address(again) == first and address(more) not in (first, address(other))
    del other, again, more
    for _ in range(100):
        assert memory.empty(SPEC) is not None
    assert memory.empty(TensorSpec("float32", (1, 3, 4))) is not None  # another size has blocks of its own
    assert library.sizes == [60, 60, 60, 48]


def test_there_is_no_more_than_the_limit() -> None:
    library = FakeCudaRuntime()
    memory = PinnedMemory(CudaRuntime(library), limit=125)
    held = [memory.empty(SPEC), memory.empty(SPEC)]
    assert all(array is not None for array in held)
    assert memory.empty(SPEC) is None
    assert memory.empty(TensorSpec("uint8", (5,))) is not None  # what is left is enough for that
    held.pop()
    gc.collect()
    assert memory.empty(SPEC) is not None
    assert sum(library.sizes) <= 125


def test_a_failure_is_final_and_leaves_no_error_behind() -> None:
    library = FakeCudaRuntime(num_blocks=1)
    memory = PinnedMemory(CudaRuntime(library))
    held = memory.empty(SPEC)
    assert held is not None and memory.empty(SPEC) is None
    assert library.last_error == 0
    assert memory.empty(SPEC) is None and library.num_calls == 2  # it is not asked again
    del held
    gc.collect()
    assert memory.empty(SPEC) is not None


def test_larger_blocks_serve_where_there_is_no_more() -> None:
    """Another model or another size of picture does not find the memory gone that an earlier one has left."""
    library = FakeCudaRuntime()
    memory = PinnedMemory(CudaRuntime(library), limit=200)
    held = [memory.empty(TensorSpec("uint8", (size,))) for size in (100, 80)]
    first, second = map(address, held)
    held.clear()
    gc.collect()
    middle, none, small = (memory.empty(TensorSpec("uint8", (size,))) for size in (90, 90, 30))
    assert address(middle) == first and none is None
    assert address(small) == second and small is not None and small.nbytes == 30
    del small, middle
    gc.collect()
    small, middle = (memory.empty(TensorSpec("uint8", (size,))) for size in (30, 90))
    assert (address(small), address(middle)) == (second, first)  # the smallest that is large enough
    del small, middle
    gc.collect()
    again = memory.empty(TensorSpec("uint8", (100,)))  # it is as large as ever
    assert again is not None and address(again) == first and library.sizes == [100, 80]


def test_no_block_is_given_to_two_threads() -> None:
    memory = PinnedMemory(CudaRuntime(FakeCudaRuntime()), limit=60 * 5)

    def work(number: int) -> bool:
        for step in range(300):
            array = memory.empty(SPEC)
            if array is None:
                continue
            array[:] = 1000 * number + step
            held = array[0, 1:]
            del array
            if not (held == 1000 * number + step).all():
                return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(work, range(6)))


def test_threads_together_keep_to_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeCudaRuntime()
    allocate = library.cudaHostAlloc
    monkeypatch.setattr(library, "cudaHostAlloc", lambda *args: time.sleep(0.01) or allocate(*args))
    memory = PinnedMemory(CudaRuntime(library), limit=60 * 3)
    with ThreadPoolExecutor(6) as pool:
        held = list(pool.map(lambda _: memory.empty(SPEC), range(6)))
    assert library.sizes == [60] * 3 and sum(one is not None for one in held) == 3


@pytest.mark.parametrize("shape", [(None, 4), (0, 4), (4, None)])
def test_nothing_for_open_sizes_and_for_no_values(shape: tuple[int | None, ...]) -> None:
    library = FakeCudaRuntime()
    assert PinnedMemory(CudaRuntime(library)).empty(TensorSpec("float32", shape)) is None and not library.sizes


@pytest.mark.parametrize(("spec", "size"), [
    (SPEC, 60), (TensorSpec("int64", ()), 8), (TensorSpec("float16", (3,)), 6), (TensorSpec("uint8", (0, 9)), 0),
    (TensorSpec("uint8", (None, 9)), 0)])
def test_sizes(spec: TensorSpec, size: int) -> None:
    assert num_bytes(spec) == size


def test_nothing_for_what_is_no_number() -> None:
    library = FakeCudaRuntime()
    assert PinnedMemory(CudaRuntime(library)).empty(TensorSpec("object", (4,))) is None and not library.sizes
