"""Sessions as CUDA graphs need them, walked on the CPU: addresses and thread stay the same, values are copied."""
from __future__ import annotations

import gc
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from cuda_runtime import FakeCudaRuntime
from tiny_bundles import SHAPES, describe, frame_graph, save_graph, temporal_graph

import stmask_deploy
from stmask_deploy.errors import DeviceError, StmaskError
from stmask_deploy.pretrained import demo_bundle, demo_clip
from stmask_deploy.runtime import onnxruntime_backend, onnxruntime_recording, onnxruntime_session, pinned_memory
from stmask_deploy.runtime.backends import Backend
from stmask_deploy.runtime.onnxruntime_copies import Copies
from stmask_deploy.runtime.onnxruntime_providers import CPU, CUDA
from stmask_deploy.runtime.onnxruntime_recording import RecordedSession, recording_thread
from stmask_deploy.runtime.onnxruntime_session import SessionMaker
from stmask_deploy.runtime.opening import open_backend
from stmask_deploy.runtime.pinned_memory import PinnedMemory

MAPS = ("prev_fpn", "fpn", "prev_temporal", "temporal")
MAP_VALUES = {name: np.full(SHAPES[name.removeprefix("prev_")], 0.4, np.float32) for name in MAPS}


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """`cuda-graph` computes on the CPU, with the CPU's memory as the device's."""
    monkeypatch.setattr(SessionMaker, "is_on_host", False)
    monkeypatch.setattr(onnxruntime_backend, "choose_provider", lambda ort, device: (CPU, ""))
    monkeypatch.setattr(onnxruntime_session, "records", lambda session: True)


def open_recorded(graph: Path) -> Backend:
    return open_backend("onnxruntime", graph, device="cuda-graph", threads=1)


@pytest.fixture
def graphs(tmp_path: Path) -> Path:
    save_graph(frame_graph(3), tmp_path / "frame.onnx", describe())
    save_graph(temporal_graph(), tmp_path / "temporal.onnx", describe())
    return tmp_path


def value_of(array: np.ndarray) -> onnxruntime.OrtValue:
    return onnxruntime.OrtValue.ortvalue_from_numpy(array)


def picture(level: int) -> dict[str, np.ndarray]:
    return {"frame": np.full((1, 40, 64, 3), level, np.uint8)}


class Memory(str):
    """A name of a memory that can be told from others of the same memory."""


class WatchedBinding:
    """A binding that notes the addresses it is given."""

    def __init__(self, binding: Any, addresses: list[int]) -> None:
        self.binding, self.addresses = binding, addresses

    def __getattr__(self, name: str) -> Any:
        bind = getattr(self.binding, name)
        if not name.startswith("bind_ortvalue"):
            return bind
        return lambda key, value: (self.addresses.append(value.data_ptr()), bind(key, value))


class Watched:
    """A session that notes which addresses were bound before each run, and which thread runs it."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.bound: list[int] = []
        self.runs: list[tuple[int, ...]] = []
        self.threads: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def io_binding(self) -> WatchedBinding:
        return WatchedBinding(self.session.io_binding(), self.bound)

    def run_with_iobinding(self, binding: WatchedBinding) -> None:
        self.session.run_with_iobinding(binding.binding)
        self.runs.append(tuple(self.bound))
        self.threads.add(threading.get_ident())


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[Watched]:
    """All sessions that are opened, in their order."""
    sessions: list[Watched] = []
    open_session = SessionMaker.open

    def open_watched(self: SessionMaker, *args: Any) -> Watched:
        sessions.append(Watched(open_session(self, *args)))
        return sessions[-1]

    monkeypatch.setattr(SessionMaker, "open", open_watched)
    return sessions


def test_addresses_and_thread_stay_the_same_whoever_runs(recorded: None, watched: list[Watched], graphs: Path) -> None:
    frame, temporal = (open_recorded(graphs / f"{role}.onnx") for role in ("frame", "temporal"))

    def run(level: int) -> None:
        maps = frame.run(picture(level), keep=("fpn", "temporal"))
        temporal.run({"prev_fpn": maps["fpn"], "fpn": maps["fpn"], "prev_temporal": maps["temporal"],
                      "temporal": maps["temporal"], "boxes": np.zeros((2, 4), np.float32)})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(40)))
    used = [session for session in watched if session.runs]
    assert [len(session.runs) for session in used] == [41, 1, 41]  # each once to be recorded; two boxes after one
    for session in (used[0], used[2]):
        assert len(set(session.runs)) == 1
        values = [*session.get_inputs(), *session.get_outputs()]
        assert len(set(session.runs[0])) == len(session.runs[0]) == len(values)
    [of_frame], [of_temporal] = used[0].threads, used[2].threads  # one each, however many run it
    assert len({of_frame, of_temporal, threading.get_ident()}) == 3


def test_threads_do_not_get_each_others_values(recorded: None, graphs: Path) -> None:
    frame = open_recorded(graphs / "frame.onnx")

    def run(level: int) -> float:
        outputs = ("fpn", "boxes") if level % 2 else None
        return float(frame.run(picture(level), outputs)["fpn"].max())

    levels = list(range(1, 200))
    with ThreadPoolExecutor(4) as pool:
        assert np.allclose(list(pool.map(run, levels)), np.array(levels) / 255)


def test_graphs_run_side_by_side(recorded: None, watched: list[Watched], graphs: Path,
                                 monkeypatch: pytest.MonkeyPatch) -> None:
    frame, temporal = (open_recorded(graphs / f"{role}.onnx") for role in ("frame", "temporal"))
    temporal.run({**MAP_VALUES, "boxes": np.zeros((1, 4), np.float32)})
    together = threading.Barrier(2, timeout=20)
    replay = Watched.run_with_iobinding

    def meet(self: Watched, binding: Any) -> None:
        together.wait()
        replay(self, binding)

    monkeypatch.setattr(Watched, "run_with_iobinding", meet)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(frame.run, picture(1))
        temporal.run({**MAP_VALUES, "boxes": np.zeros((1, 4), np.float32)})
        assert np.allclose(other.result()["fpn"], 1 / 255)


def test_nothing_runs_while_a_session_is_recorded(recorded: None, watched: list[Watched], graphs: Path,
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    frame, temporal = (open_recorded(graphs / f"{role}.onnx") for role in ("frame", "temporal"))
    open_session, is_recording, spoilt = SessionMaker.open, threading.Event(), []
    replay = Watched.run_with_iobinding

    def open_slowly(self: SessionMaker, *args: Any) -> Any:
        is_recording.set()
        session = open_session(self, *args)
        time.sleep(0.1)
        is_recording.clear()
        return session

    def note(self: Watched, binding: Any) -> None:
        spoilt.append(is_recording.is_set())
        replay(self, binding)

    monkeypatch.setattr(SessionMaker, "open", open_slowly)
    monkeypatch.setattr(Watched, "run_with_iobinding", note)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(lambda: [frame.run(picture(1)) for _ in range(300)])
        for rows in (2, 4, 8):
            temporal.run({**MAP_VALUES, "boxes": np.zeros((rows, 4), np.float32)})
        other.result()
    assert len(spoilt) == 306 and not any(spoilt)


def test_values_outlive_the_next_run_and_feed_the_next_graph(recorded: None, graphs: Path) -> None:
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


def test_only_what_is_kept_stays_on_the_device(recorded: None, graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places: list[dict[str, Any]] = []
    copy = Copies.run

    def noted(self: Copies, values: Any, to: Any) -> Any:
        places.append(dict(to))
        return copy(self, values, to)

    monkeypatch.setattr(SessionMaker, "memory", Memory("cpu"))
    frame = open_recorded(graphs / "frame.onnx")
    monkeypatch.setattr(Copies, "run", noted)
    frame.run(picture(51), keep=("fpn", "temporal"))
    _, fetched = places
    assert {name for name, place in fetched.items() if isinstance(place, Memory)} == {"fpn", "temporal"}
    assert set(fetched) == set(frame.output_names)


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
    assert set(before) == set(frame.output_names) == set(all_of_them) and not isinstance(before["fpn"], np.ndarray)
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
        assert set(found) == set(frame.output_names) and np.allclose(found["fpn"], level / 255)


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


def test_what_a_graph_does_not_take_is_refused_and_not_remembered(recorded: None, graphs: Path) -> None:
    temporal = open_recorded(graphs / "temporal.onnx")
    feeds = MAP_VALUES | {"boxes": np.zeros((2, 4), np.float32)}
    good = temporal.run(feeds)
    wrong = [({"fpn": None}, "fpn is missing"),
             ({"boxes": np.zeros((2, 4))}, "boxes: expected float32 .*float64"),
             ({"fpn": value_of(feeds["fpn"].reshape(-1))}, r"fpn: expected float32 \(1, .* got float32 \(\d+,\)"),
             ({"fpn": feeds["fpn"].reshape(-1)}, r"fpn: expected float32 \(1, .* got float32 \(\d+,\)")]
    for change, told in wrong:
        changed = {name: value for name, value in (feeds | change).items() if value is not None}
        with pytest.raises(StmaskError, match=f"failed in the graph: input {told}"):
            temporal.run(changed)
    assert all(np.array_equal(values, good[name]) for name, values in temporal.run(feeds).items())


def test_a_video_gives_what_it_gives_otherwise(recorded: None) -> None:
    clips = [[(result.ids.tolist(), result.scores, result.masks) for result, _ in
              zip(stmask_deploy.load(device=device, threads=1).track(demo_clip()), range(4), strict=False)]
             for device in ("cpu", "cuda-graph")]
    for plain, ours in zip(*clips, strict=True):
        assert len(ours[0]) > 1 and ours[0] == plain[0]
        assert np.allclose(ours[1], plain[1], atol=1e-5) and (ours[2] == plain[2]).mean() > 0.999


class FakeGpu:
    """ONNX Runtime with a CUDA provider that computes on the CPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, takes_option: bool = True) -> None:
        self.asked: list[dict[str, str]] = []  # options of CUDA, by session
        session_class = onnxruntime.InferenceSession

        def open_session(model: Any, options: Any, providers: list[Any], **others: Any) -> Any:
            session = session_class(model, options, providers=[CPU], **others)
            if providers[0][0] == CUDA:
                self.asked.append(providers[0][1])
                held = providers[0][1] if takes_option else {}
                monkeypatch.setattr(session, "get_providers", lambda: [CUDA, CPU], raising=False)
                monkeypatch.setattr(session, "get_provider_options", lambda: {CUDA: held, CPU: {}}, raising=False)
            return session

        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
        monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)
        monkeypatch.setattr(SessionMaker, "memory", "cpu")


def test_launches_are_recorded_where_that_is_asked_for(graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(monkeypatch)
    for device, recorded in (("cuda", [None]), ("cuda-graph", ["1", None, None])):  # and its copies, to and fro
        gpu.asked.clear()
        frame = open_backend("onnxruntime", graphs / "frame.onnx", device=device)
        assert np.allclose(frame.run(picture(51))["fpn"], 0.2)
        assert [options.get("enable_cuda_graph") for options in gpu.asked] == recorded
        assert "CUDA" in frame.device and ("CUDA graphs" in frame.device) == (device == "cuda-graph")


def test_a_library_that_records_nothing_is_told_at_once(graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeGpu(monkeypatch, takes_option=False)
    with pytest.raises(DeviceError, match="device cuda-graph was asked for but .* records nothing; use device cuda$"):
        open_backend("onnxruntime", graphs / "frame.onnx", device="cuda-graph")


@pytest.mark.parametrize("role", ["frame", "temporal"])
def test_a_recording_that_fails_is_told_at_once(recorded: None, watched: list[Watched], graphs: Path, role: str,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Watched, binding: Any) -> None:
        raise RuntimeError("CUDA failure 900: operation not permitted when stream is capturing\nsomewhere")

    monkeypatch.setattr(Watched, "run_with_iobinding", fail)
    told = rf"{role}.onnx: device cuda-graph cannot record it \(CUDA failure 900.*\); use device cuda$"
    with pytest.raises(DeviceError, match=told) as raised:
        open_recorded(graphs / f"{role}.onnx")
    assert "\n" not in str(raised.value)


def test_what_cannot_be_recorded_in_one_layout_is_in_the_other(recorded: None, watched: list[Watched], graphs: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    layouts: list[bool] = []
    gone: list[bool] = []  # whether the session that failed was, when the other one was opened
    failed: list[weakref.ref[Any]] = []
    open_session = SessionMaker.open

    def open_noted(self: SessionMaker, *args: Any) -> Any:
        layouts.append(self.channels_last)
        gc.collect()
        gone.append(not [one for one in failed if one() is not None])
        session = open_session(self, *args)
        if self.is_recorded and self.channels_last:
            session.run_with_iobinding = fail
            failed.append(weakref.ref(session))
            watched.clear()
        return session

    def fail(binding: Any) -> None:
        raise RuntimeError("CUDA failure 901: operation failed due to a previous error during capture")

    monkeypatch.setattr(SessionMaker, "open", open_noted)
    frame = open_backend("onnxruntime", graphs / "frame.onnx", device="cuda-graph", precision="f16", threads=1)
    assert np.allclose(frame.run(picture(51))["fpn"], 0.2)
    assert layouts == [True, True, False]  # what the graph is like, told on the host, and two recordings
    assert failed and all(gone)


def test_a_graph_of_open_sizes_is_refused(recorded: None, graphs: Path) -> None:
    maker = SessionMaker(onnxruntime, graphs / "temporal.onnx", CPU, "f32", 1, None, is_recorded=True)
    with pytest.raises(DeviceError, match="size of boxes is not fixed.*use device cuda"):
        RecordedSession(maker, ("box_deltas",), {})


def test_a_refusal_names_the_device_and_the_next_best(graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session_class = onnxruntime.InferenceSession

    def refuse(model: Any, options: Any, providers: list[Any], **others: Any) -> Any:
        if providers[0][0] == CUDA:
            raise RuntimeError("This session cannot use the graph capture feature")
        return session_class(model, options, providers=providers, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    maker = SessionMaker(onnxruntime, graphs / "frame.onnx", CUDA, "f32", None, None, is_recorded=True)
    with pytest.raises(DeviceError, match="device cuda-graph cannot run it .*capture feature.* or use device cuda$"):
        maker.open()
    assert maker.memory == "cuda"


def test_sessions_end_on_the_thread_that_made_them(recorded: None, watched: list[Watched], graphs: Path) -> None:
    frame = open_recorded(graphs / "frame.onnx")
    frame.run(picture(1))
    ended: list[threading.Thread] = []
    gone = threading.Event()

    def note() -> None:
        ended.append(threading.current_thread())
        gone.set()

    [session] = [session for session in watched if session.runs]
    weakref.finalize(session, note)
    watched.clear()
    del session, frame
    gc.collect()
    assert gone.wait(5)
    assert ended == [recording_thread("frame")]


def test_garbage_of_another_video_does_not_stop_the_thread(recorded: None) -> None:
    model = stmask_deploy.load(device="cuda-graph", threads=1)

    def abandon() -> None:
        cycle: list[Any] = [model.track(demo_clip(), mode="throughput")]
        cycle.append(cycle)
        next(cycle[0])

    gc.disable()  # so that it is collected there, where its own threads wait
    try:
        abandon()
        assert recording_thread("frame").post(gc.collect).result(30) > 0
    finally:
        gc.enable()
    assert len(next(model.fork().track(demo_clip())).ids)


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
    assert tracks("cuda-graph") == tracks("cuda")


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
