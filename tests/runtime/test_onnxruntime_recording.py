"""Sessions that are recorded, walked on the CPU by a stand-in for CUDA's runtime that works when it is waited for."""
from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from cuda_runtime import FakeCudaRuntime
from recorded_graphs import MAP_VALUES, CapturableSession, open_recorded, picture, value_of

import stmask_deploy
from stmask_deploy.errors import DeviceError, InputError, StmaskError
from stmask_deploy.pretrained import demo_bundle, demo_clip
from stmask_deploy.runtime import onnxruntime_recording, onnxruntime_session, pinned_memory
from stmask_deploy.runtime.cuda_runtime import CudaEvent, CudaRuntime
from stmask_deploy.runtime.onnxruntime_providers import CPU
from stmask_deploy.runtime.onnxruntime_recording import RecordedSession
from stmask_deploy.runtime.onnxruntime_session import SessionMaker
from stmask_deploy.runtime.opening import open_backend
from stmask_deploy.runtime.pinned_memory import PinnedMemory

ROWS = {**MAP_VALUES, "boxes": np.zeros((2, 4), np.float32)}


@pytest.fixture
def watched(recorded: FakeCudaRuntime, monkeypatch: pytest.MonkeyPatch) -> list[CapturableSession]:
    """All sessions that are opened to be recorded, in their order."""
    sessions: list[CapturableSession] = []
    open_session = SessionMaker.open

    def open_watched(self: SessionMaker, *args: Any) -> Any:
        session = open_session(self, *args)
        if isinstance(session, CapturableSession):
            sessions.append(session)
        return session

    monkeypatch.setattr(SessionMaker, "open", open_watched)
    return sessions


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch, recorded: FakeCudaRuntime) -> PinnedMemory:
    """Page-locked memory, for which every value with more than one element is large."""
    memory = PinnedMemory(CudaRuntime(recorded))
    monkeypatch.setattr(onnxruntime_session, "pinned_memory", lambda version: memory)
    monkeypatch.setattr(pinned_memory, "LARGE", 9)
    return memory


def test_a_graph_is_captured_once_and_launched_by_every_run(recorded: FakeCudaRuntime,
                                                            watched: list[CapturableSession], graphs: Path) -> None:
    frame, temporal = (open_recorded(graphs / f"{role}.onnx") for role in ("frame", "temporal"))

    def run(level: int) -> None:
        maps = frame.run(picture(level), keep=("fpn", "temporal"))
        temporal.run({"prev_fpn": maps["fpn"], "fpn": maps["fpn"], "prev_temporal": maps["temporal"],
                      "temporal": maps["temporal"], "boxes": np.zeros((2, 4), np.float32)})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(40)))
    assert [session.num_runs for session in watched] == [2] * 3  # frame, temporal of one box and of two
    for session in watched:  # other values could be indices out of range
        assert session.captured and not any(value.any() for value in session.captured)
    counts = {executable: recorded.launched.count(executable) for executable in recorded.launched}
    assert sorted(counts.values()) == [1, 41, 41]  # once when it was captured
    for session in watched:  # all values have addresses of their own, given once
        assert len(set(session.bound)) == len(session.bound) == len([*session.get_inputs(), *session.get_outputs()])


def test_nothing_is_opened_while_another_graph_is_captured(recorded: FakeCudaRuntime, graphs: Path,
                                                           monkeypatch: pytest.MonkeyPatch) -> None:
    others = threading.Event()
    open_session, capture = SessionMaker.open, onnxruntime_recording.capture

    def opened(self: SessionMaker, outputs: Any = None, sizes: Any = None, stream: int | None = None) -> Any:
        if stream is not None and self.graph.stem == "temporal":
            others.set()
        return open_session(self, outputs, sizes, stream)

    def captured(ort: Any, session: Any, binding: Any, stream: Any) -> Any:
        if not others.is_set():  # the first one, while the other thread has half a second to interfere
            second.append(pool.submit(open_recorded, graphs / "temporal.onnx"))
            assert not others.wait(0.5)
        return capture(ort, session, binding, stream)

    monkeypatch.setattr(SessionMaker, "open", opened)
    monkeypatch.setattr(onnxruntime_recording, "capture", captured)
    second: list[Any] = []
    with ThreadPoolExecutor(1) as pool:
        open_recorded(graphs / "frame.onnx")
        assert second[0].result() and others.is_set()


def test_threads_do_not_get_each_others_values(recorded: FakeCudaRuntime, memory: PinnedMemory, graphs: Path) -> None:
    frame = open_recorded(graphs / "frame.onnx")

    def run(level: int) -> tuple[float, float]:
        outputs = ("fpn", "boxes") if level % 2 else None
        found = frame.run(picture(level), outputs)
        return float(found["fpn"].min()), float(found["fpn"].max())

    levels = list(range(1, 200))
    with ThreadPoolExecutor(4) as pool:
        assert np.allclose(list(pool.map(run, levels)), np.array([levels, levels]).T / 255)
    assert len(recorded.sizes) < 60  # blocks and events are used again


def test_a_run_waits_for_its_own_end_only(recorded: FakeCudaRuntime, graphs: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    """So the next run of a graph is queued while the last one is still computed."""
    frame = open_recorded(graphs / "frame.onnx")
    together = threading.Barrier(2, timeout=20)
    wait = CudaEvent.wait

    def meet(self: CudaEvent) -> None:
        together.wait()  # both runs are queued
        wait(self)

    monkeypatch.setattr(CudaEvent, "wait", meet)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(frame.run, picture(51), None, ("temporal",))
        assert np.allclose(frame.run(picture(102), keep=("temporal",))["fpn"], 0.4)
        assert np.allclose(other.result()["fpn"], 0.2)


def test_values_outlive_the_next_run_and_feed_the_next_graph(recorded: FakeCudaRuntime, graphs: Path) -> None:
    frame, temporal = (open_recorded(graphs / f"{role}.onnx") for role in ("frame", "temporal"))
    array = frame.run(picture(51))["fpn"]
    before = frame.run(picture(51), keep=("fpn", "temporal"))
    arrays = {name: value.copy() for name, value in before.items() if isinstance(value, np.ndarray)}
    now = frame.run(picture(102), keep=("fpn", "temporal"))
    assert not isinstance(before["fpn"], np.ndarray) and len(arrays) > 4
    assert np.allclose(before["fpn"].numpy(), 0.2) and np.allclose(now["fpn"].numpy(), 0.4)
    assert all(np.array_equal(before[name], value) for name, value in arrays.items())
    assert isinstance(array, np.ndarray) and np.allclose(array, 0.2)
    for rows in (3, 0, 1, 4):
        deltas = temporal.run({"prev_fpn": before["fpn"], "fpn": now["fpn"], "prev_temporal": before["temporal"],
                               "temporal": now["temporal"], "boxes": np.zeros((rows, 4), np.float32)})
        assert deltas["box_deltas"].shape == (rows, 4) and np.allclose(deltas["box_deltas"], 0.4)


def test_large_values_come_in_locked_memory_and_small_ones_do_not(recorded: FakeCudaRuntime, memory: PinnedMemory,
                                                                  graphs: Path) -> None:
    frame = open_recorded(graphs / "frame.onnx")
    before = frame.run(picture(51), keep=("fpn",))
    arrays = {name: value.copy() for name, value in before.items() if name != "fpn"}
    for _ in range(3):
        frame.run(picture(102), keep=("fpn",))
    assert set(before) == set(frame.outputs) and not isinstance(before["fpn"], np.ndarray)
    for name, value in arrays.items():
        assert np.array_equal(before[name], value)
        assert (before[name].ctypes.data in recorded.addresses) == (value.nbytes > 8), name
    assert picture(51)["frame"].nbytes in recorded.sizes and 8 in recorded.sizes  # the places of small ones are locked
    part = frame.run(picture(102), ("fpn", "num_candidates"))  # has a session of its own
    assert set(part) == {"fpn", "num_candidates"} and np.allclose(part["fpn"], 0.4)
    assert np.allclose(before["fpn"].numpy(), 0.2)


def test_values_are_the_same_where_there_is_no_more_locked_memory(recorded: FakeCudaRuntime, graphs: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    memory = PinnedMemory(CudaRuntime(FakeCudaRuntime(num_blocks=2)))
    monkeypatch.setattr(onnxruntime_session, "pinned_memory", lambda version: memory)
    monkeypatch.setattr(pinned_memory, "LARGE", 9)
    frame = open_recorded(graphs / "frame.onnx")
    for level in (51, 102, 204):
        found = frame.run(picture(level))
        assert set(found) == set(frame.outputs) and np.allclose(found["fpn"], level / 255)


def test_only_what_is_asked_for_is_copied(recorded: FakeCudaRuntime, graphs: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    maker = SessionMaker(onnxruntime, graphs / "frame.onnx", CPU, "f32", 1, None, is_recorded=True)
    session = RecordedSession(maker, ("fpn", "boxes"), {})
    sizes: list[int] = []
    put = FakeCudaRuntime.cudaMemcpyAsync

    def note(self: FakeCudaRuntime, to: Any, source: Any, size: Any, *rest: Any) -> int:
        sizes.append(size.value)
        return put(self, to, source, size, *rest)

    monkeypatch.setattr(FakeCudaRuntime, "cudaMemcpyAsync", note)
    boxes = session.run(picture(51), ("boxes",), ())
    fpn = session.run(picture(51), ("fpn",), ("boxes",))
    assert set(boxes) == {"boxes"} and set(fpn) == {"fpn"} and np.allclose(fpn["fpn"], 0.2)
    size = picture(51)["frame"].nbytes
    assert sizes == [size, boxes["boxes"].nbytes, size, fpn["fpn"].nbytes]


def test_what_a_graph_does_not_take_is_refused_and_not_remembered(recorded: FakeCudaRuntime, memory: PinnedMemory,
                                                                  graphs: Path) -> None:
    temporal = open_recorded(graphs / "temporal.onnx")
    good = temporal.run(ROWS)
    number = len(recorded.sizes)
    fpn = ROWS["fpn"]
    wrong = [({"boxes": np.zeros((2, 4))}, "boxes: expected float32 .*float64"),
             ({"fpn": value_of(fpn.reshape(-1))}, r"fpn: expected float32 \(1, .* got float32 \(\d+,\)"),
             ({"fpn": fpn.reshape(-1)}, r"fpn: expected float32 \(1, .* got float32 \(\d+,\)"),
             ({"fpn": value_of(fpn.astype(np.float16))}, "fpn: expected float32 .* got float16")]
    for change, told in wrong:
        with pytest.raises(StmaskError, match=f"failed in the graph: input {told}"):
            temporal.run(ROWS | change)
    with pytest.raises(InputError, match="the graph needs fpn, which was not given"):
        temporal.run({name: value for name, value in ROWS.items() if name != "fpn"})
    assert len(recorded.sizes) == number
    assert all(np.array_equal(values, good[name]) for name, values in temporal.run(ROWS).items())


def test_arrays_in_any_order_of_memory(recorded: FakeCudaRuntime, graphs: Path) -> None:
    frame = open_recorded(graphs / "frame.onnx")
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (1, 40, 64, 3), np.uint8)
    expected = frame.run({"frame": image})
    for same in (np.asfortranarray(image), image[:, ::-1, ::-1].copy()[:, ::-1, ::-1]):
        assert not same.flags.c_contiguous
        assert all(np.array_equal(value, expected[name]) for name, value in frame.run({"frame": same}).items())


@pytest.mark.parametrize("name", ["cudaMemcpyAsync", "cudaGraphLaunch", "cudaEventRecord", "cudaEventSynchronize",
                                  "cudaEventCreateWithFlags"])
def test_what_fails_on_the_way_is_told_and_waited_for(recorded: FakeCudaRuntime, memory: PinnedMemory, graphs: Path,
                                                      name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = open_recorded(graphs / "frame.onnx")
    waits: list[int] = []
    wait = FakeCudaRuntime.cudaStreamSynchronize
    monkeypatch.setattr(FakeCudaRuntime, "cudaStreamSynchronize",
                        lambda self, stream: waits.append(stream.value) or wait(self, stream))
    recorded.fails = {name: 719}
    with pytest.raises(StmaskError, match=f"failed in the graph: {name}: CUDA failure 719: error 719"):
        frame.run(picture(51))
    assert bool(waits) == (name != "cudaEventCreateWithFlags")  # then nothing was queued
    recorded.fails = {}
    assert np.allclose(frame.run(picture(102))["fpn"], 0.4)


def test_ctrl_c_waits_for_what_is_queued(recorded: FakeCudaRuntime, memory: PinnedMemory, graphs: Path,
                                         monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise it would be written into memory that holds something else by then."""
    frame = open_recorded(graphs / "frame.onnx")

    def interrupt(self: CudaEvent) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CudaEvent, "wait", interrupt)
        with pytest.raises(KeyboardInterrupt):
            frame.run(picture(51))
    assert recorded.is_idle


def test_a_video_gives_what_it_gives_otherwise(recorded: FakeCudaRuntime) -> None:
    clips = [[(result.ids.tolist(), result.scores, result.masks) for result, _ in
              zip(stmask_deploy.load(device=device, threads=1).track(demo_clip()), range(4), strict=False)]
             for device in ("cpu", "cuda-graph")]
    for plain, ours in zip(*clips, strict=True):
        assert len(ours[0]) > 1 and ours[0] == plain[0]
        assert np.allclose(ours[1], plain[1], atol=1e-5) and (ours[2] == plain[2]).mean() > 0.999


@pytest.mark.parametrize("role", ["frame", "temporal"])
def test_a_recording_that_fails_is_told_at_once(recorded: FakeCudaRuntime, graphs: Path, role: str,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: CapturableSession, binding: Any, options: Any = None) -> None:
        raise RuntimeError("CUDA failure 900: operation not permitted when stream is capturing\nsomewhere")

    monkeypatch.setattr(CapturableSession, "run_with_iobinding", fail)
    told = rf"{role}.onnx: device cuda-graph cannot record it \(CUDA failure 900.*\); use device cuda$"
    with pytest.raises(DeviceError, match=told) as raised:
        open_recorded(graphs / f"{role}.onnx")
    assert "\n" not in str(raised.value)


def test_a_graph_that_needs_the_host_is_refused(recorded: FakeCudaRuntime, graphs: Path) -> None:
    recorded.node_kinds = [0, 3]
    with pytest.raises(DeviceError, match=r"cannot record it \(the graph needs functions of the host.*device cuda$"):
        open_recorded(graphs / "frame.onnx")


def test_a_graph_of_open_sizes_is_refused(recorded: FakeCudaRuntime, graphs: Path) -> None:
    maker = SessionMaker(onnxruntime, graphs / "temporal.onnx", CPU, "f32", 1, None, is_recorded=True)
    with pytest.raises(DeviceError, match="size of boxes is not fixed.*use device cuda"):
        RecordedSession(maker, ("box_deltas",), {})


def test_a_file_that_was_replaced_is_told(recorded: FakeCudaRuntime, graphs: Path) -> None:
    frame = open_recorded(graphs / "frame.onnx")
    (graphs / "frame.onnx").write_bytes((graphs / "temporal.onnx").read_bytes())
    with pytest.raises(InputError):
        frame.run(picture(51), ("fpn",))


def test_nothing_of_a_session_is_left(recorded: FakeCudaRuntime, watched: list[CapturableSession],
                                      graphs: Path) -> None:
    frame = open_recorded(graphs / "frame.onnx")
    for level in (51, 102):
        frame.run(picture(level))
    session = weakref.ref(watched.pop())
    assert recorded.destroyed == ["graph"]
    del frame
    gc.collect()
    assert session() is None and sorted(recorded.destroyed) == ["event", "executable", "graph"]
    open_recorded(graphs / "frame.onnx")
    assert recorded.num_streams == 1  # used again


def tracks(device: str) -> list[list[int]]:
    """Identities in every frame of the demo clip, of two videos at once."""
    model = stmask_deploy.load(device=device)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda one: [result.ids.tolist() for result in one.track(demo_clip())],
                              (model, model.fork())))
    assert found[0] == found[1]
    return found[0]


@pytest.mark.gpu
def test_a_gpu_gives_the_same_tracks_with_and_without_graphs() -> None:
    expected = tracks("cuda")
    assert tracks("cuda-graph") == expected and tracks("auto") == expected
    assert "CUDA graphs" in open_backend("onnxruntime", demo_bundle() / "frame.onnx", device="auto").device


@pytest.mark.gpu
def test_a_gpu_gives_the_same_maps_with_and_without_graphs() -> None:
    path = demo_bundle() / "frame.onnx"
    rng = np.random.default_rng(0)
    plain, ours = (open_backend("onnxruntime", path, device=device) for device in ("cuda", "cuda-graph"))
    for _ in range(4):
        feeds = {"frame": rng.integers(0, 256, plain.inputs["frame"].shape, np.uint8)}
        maps = ("prototypes", "fpn", "temporal", "shared")  # rows of nearly equal scores may change places
        expected, found = plain.run(feeds, maps), ours.run(feeds, maps)
        assert all(np.allclose(found[name], value, rtol=1e-3, atol=1e-3) for name, value in expected.items())


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
