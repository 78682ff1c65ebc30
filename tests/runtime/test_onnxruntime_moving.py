"""Large values of the host on their way to a session on a device, and back: who moves them, when, and from where."""
from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from cuda_runtime import FakeCudaRuntime
from recorded_graphs import MAP_VALUES, Memory, open_recorded, picture

from stmask_deploy.errors import StmaskError
from stmask_deploy.pretrained import demo_bundle
from stmask_deploy.runtime import onnxruntime_recording, onnxruntime_session, pinned_memory
from stmask_deploy.runtime.onnxruntime_copies import Copies
from stmask_deploy.runtime.onnxruntime_providers import CPU
from stmask_deploy.runtime.onnxruntime_recording import RecordedSession, recording_thread
from stmask_deploy.runtime.onnxruntime_session import SessionMaker
from stmask_deploy.runtime.opening import open_backend
from stmask_deploy.runtime.pinned_memory import PinnedMemory


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> FakeCudaRuntime:
    """Every value is large enough for page-locked memory."""
    library = FakeCudaRuntime()
    memory = PinnedMemory(library)
    monkeypatch.setattr(onnxruntime_session, "pinned_memory", lambda version: memory)
    monkeypatch.setattr(pinned_memory, "LARGE", 1)
    return library


def test_large_values_are_brought_to_locked_memory_and_outlive_the_next_run(
        recorded: None, pinned: FakeCudaRuntime, graphs: Path) -> None:
    frame = open_recorded(graphs / "frame.onnx")
    before = frame.run(picture(51), keep=("fpn",))
    arrays = {name: value.copy() for name, value in before.items() if name != "fpn"}
    frame.run(picture(102), keep=("fpn",))
    all_of_them = frame.run(picture(102))
    part = frame.run(picture(102), ("fpn", "boxes"))  # has a session of its own
    assert set(before) == set(frame.outputs) == set(all_of_them) and not isinstance(before["fpn"], np.ndarray)
    assert np.allclose(all_of_them["fpn"], 0.4)
    for name, value in arrays.items():
        assert np.array_equal(before[name], value) and before[name].ctypes.data in pinned.addresses
    assert set(part) == {"fpn", "boxes"} and np.allclose(part["fpn"], 0.4) and np.allclose(before["fpn"].numpy(), 0.2)
    assert picture(51)["frame"].nbytes in pinned.sizes


def test_values_are_the_same_where_there_is_no_more_locked_memory(
        recorded: None, pinned: FakeCudaRuntime, graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = PinnedMemory(FakeCudaRuntime(num_blocks=2))
    monkeypatch.setattr(onnxruntime_session, "pinned_memory", lambda version: memory)
    frame = open_recorded(graphs / "frame.onnx")
    for level in (51, 102, 204):
        found = frame.run(picture(level))
        assert set(found) == set(frame.outputs) and np.allclose(found["fpn"], level / 255)


def test_a_part_of_the_outputs(recorded: None, pinned: FakeCudaRuntime, graphs: Path) -> None:
    maker = SessionMaker(onnxruntime, graphs / "frame.onnx", CPU, "f32", 1, None, is_recorded=True)
    session = RecordedSession(maker, ("fpn", "boxes"), {})
    assert set(session.run(picture(51), ("boxes",), ())) == {"boxes"}
    found = session.run(picture(51), ("fpn",), ("boxes",))
    assert set(found) == {"fpn"} and np.allclose(found["fpn"], 0.2)


def test_large_values_are_moved_by_the_caller_while_the_graph_runs_for_another(
        recorded: None, pinned: FakeCudaRuntime, graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SessionMaker, "memory", Memory("cpu"))
    frame = open_recorded(graphs / "frame.onnx")
    is_moving, other_is_done = threading.Event(), threading.Event()
    make_place = SessionMaker.empty_pinned
    moves: list[tuple[str, str]] = []
    copy = Copies.run

    def wait(self: SessionMaker, spec: Any) -> Any:  # in the middle of the first caller's fetching
        place = make_place(self, spec)
        if threading.current_thread().name == "first" and spec.dtype == "float32" and not is_moving.is_set():
            is_moving.set()
            assert other_is_done.wait(20)
        return place

    def note(self: Copies, values: Any, places: Any) -> Any:
        kinds = {"array" if isinstance(value, np.ndarray) else "value" for value in values.values()}
        ends = {"device" if isinstance(place, Memory | onnxruntime.OrtValue) else "host" for place in places.values()}
        moves.append((threading.current_thread().name, f"{'+'.join(kinds)} to {'+'.join(ends)}"))
        return copy(self, values, places)

    monkeypatch.setattr(SessionMaker, "empty_pinned", wait)
    monkeypatch.setattr(Copies, "run", note)
    found: list[Any] = []
    first = threading.Thread(name="first", target=lambda: found.append(frame.run(picture(51), keep=("temporal",))))
    first.start()
    assert is_moving.wait(20)
    assert np.allclose(frame.run(picture(102), keep=("temporal",))["fpn"], 0.4)
    other_is_done.set()
    first.join(20)
    assert np.allclose(found[0]["fpn"], 0.2)
    ours = threading.current_thread().name
    on_the_graph = [(name, move) for name, move in moves if name not in ("first", ours)]
    assert [move for _, move in on_the_graph] == ["value to device"] * 4
    assert [one for one in moves if one not in on_the_graph] == [
        ("first", "array to device"), (ours, "array to device"), (ours, "value to host"), ("first", "value to host")]


def test_nothing_is_moved_or_locked_while_a_session_is_recorded(
        recorded: None, pinned: FakeCudaRuntime, graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame, temporal = (open_recorded(graphs / f"{role}.onnx") for role in ("frame", "temporal"))
    frame.run(picture(1))
    open_session, is_recording = SessionMaker.open, threading.Event()
    spoilt: dict[str, list[bool]] = {"copy": [], "lock": []}
    copy, allocate = Copies.run, FakeCudaRuntime.cudaHostAlloc

    pool = ThreadPoolExecutor(8)

    def open_slowly(self: SessionMaker, *args: Any) -> Any:
        is_recording.set()
        others.append(pool.submit(frame.run, picture(1)))  # somebody who begins just then
        session = open_session(self, *args)
        time.sleep(0.1)
        is_recording.clear()
        return session

    def note(self: Copies, *args: Any) -> Any:
        if threading.current_thread() not in (recording_thread("frame"), recording_thread("temporal")):
            spoilt["copy"].append(is_recording.is_set())
        return copy(self, *args)

    def note_lock(self: FakeCudaRuntime, *args: Any) -> int:
        spoilt["lock"].append(is_recording.is_set())
        return allocate(self, *args)

    monkeypatch.setattr(SessionMaker, "open", open_slowly)
    monkeypatch.setattr(Copies, "run", note)
    monkeypatch.setattr(FakeCudaRuntime, "cudaHostAlloc", note_lock)
    held: list[Any] = []  # so that more is locked all the time
    with pool:
        others = [pool.submit(lambda: held.extend(frame.run(picture(1)) for _ in range(200))) for _ in range(2)]
        for rows in (2, 4, 8):
            temporal.run({**MAP_VALUES, "boxes": np.zeros((rows, 4), np.float32)})
        for other in others:
            other.result()
    assert len(held) == 400 and len(spoilt["copy"]) == 2 * 406 and len(spoilt["lock"]) > 400
    assert not any(spoilt["copy"] + spoilt["lock"])


def test_what_fails_on_the_way_is_told(recorded: None, pinned: FakeCudaRuntime, graphs: Path,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    frame = open_recorded(graphs / "frame.onnx")
    for way in ("send", "fetch"):
        with monkeypatch.context() as patch:
            patch.setattr(onnxruntime_recording._Recording, way, lambda self, values: 1 / 0)
            with pytest.raises(StmaskError, match="failed in the graph: division by zero"):
                frame.run(picture(51))
        assert np.allclose(frame.run(picture(51))["fpn"], 0.2)


def test_small_values_need_no_second_copy(recorded: None, graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = open_recorded(graphs / "frame.onnx")
    threads = []
    copy = Copies.run
    monkeypatch.setattr(Copies, "run", lambda self, *args: threads.append(threading.current_thread())
                        or copy(self, *args))
    assert np.allclose(frame.run(picture(51))["fpn"], 0.2)
    assert threads == [recording_thread("frame")] * 2


def test_what_is_refused_is_not_locked_before(recorded: None, pinned: FakeCudaRuntime, graphs: Path) -> None:
    frame = open_recorded(graphs / "frame.onnx")
    with pytest.raises(StmaskError, match="input frame: expected uint8 .*float64"):
        frame.run({"frame": np.zeros((1, 40, 64, 3))})
    assert pinned.sizes == []


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cuda", "cuda-graph"])
def test_a_gpu_gives_the_same_from_page_locked_memory(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By several threads, in blocks that are used again: a value that was read too early is another one's."""
    frame = open_backend("onnxruntime", demo_bundle() / "frame.onnx", device=device)
    rng = np.random.default_rng(0)
    pictures = [{"frame": rng.integers(0, 256, frame.inputs["frame"].shape, np.uint8)} for _ in range(6)]
    names = ("prototypes", "shared", "num_candidates")
    blocks: list[int] = []
    make_place = SessionMaker.empty_pinned

    def noted(self: SessionMaker, spec: Any) -> Any:
        place = make_place(self, spec)
        if pinned_memory.is_large(spec):
            blocks.append(0 if place is None else place.ctypes.data)
        return place

    with monkeypatch.context() as patch:
        patch.setattr(SessionMaker, "empty_pinned", lambda self, spec: None)
        expected = [frame.run(one, names) for one in pictures]
    monkeypatch.setattr(SessionMaker, "empty_pinned", noted)

    def agrees(number: int) -> bool:
        found, known = frame.run(pictures[number % 6], names), expected[number % 6]
        return all(np.allclose(found[name], known[name], rtol=1e-3, atol=1e-3) for name in names)

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(agrees, range(120)))
    assert all(blocks) and len(set(blocks)) < len(blocks) // 4
