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
from recorded_graphs import MAP_VALUES, Memory, open_recorded, picture, value_of

import stmask_deploy
from stmask_deploy.errors import DeviceError, InputError, StmaskError
from stmask_deploy.pretrained import demo_bundle, demo_clip
from stmask_deploy.runtime.onnxruntime_copies import Copies
from stmask_deploy.runtime.onnxruntime_providers import CPU, CUDA
from stmask_deploy.runtime.onnxruntime_recording import RecordedSession, recording_thread
from stmask_deploy.runtime.onnxruntime_session import SessionMaker
from stmask_deploy.runtime.opening import open_backend


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
    assert set(fetched) == set(frame.outputs)


def test_what_a_graph_does_not_take_is_refused_and_not_remembered(recorded: None, graphs: Path) -> None:
    temporal = open_recorded(graphs / "temporal.onnx")
    feeds = MAP_VALUES | {"boxes": np.zeros((2, 4), np.float32)}
    good = temporal.run(feeds)
    wrong = [({"boxes": np.zeros((2, 4))}, "boxes: expected float32 .*float64"),
             ({"fpn": value_of(feeds["fpn"].reshape(-1))}, r"fpn: expected float32 \(1, .* got float32 \(\d+,\)"),
             ({"fpn": feeds["fpn"].reshape(-1)}, r"fpn: expected float32 \(1, .* got float32 \(\d+,\)")]
    for change, told in wrong:
        with pytest.raises(StmaskError, match=f"failed in the graph: input {told}"):
            temporal.run(feeds | change)
    with pytest.raises(InputError, match="the graph needs fpn, which was not given"):
        temporal.run({name: value for name, value in feeds.items() if name != "fpn"})
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
    with pytest.raises(DeviceError, match="cuda-graph was asked for but .* does not support CUDA graphs; use .* cuda$"):
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


def test_what_fails_in_both_layouts_is_told_of_the_first(recorded: None, watched: list[Watched], graphs: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    failures = iter(["CUDA failure 901", "CUDA failure 2"])

    def fail(self: Watched, binding: Any) -> None:
        raise RuntimeError(next(failures))

    monkeypatch.setattr(Watched, "run_with_iobinding", fail)
    with pytest.raises(DeviceError, match=r"cannot record it \(CUDA failure 901\)"):
        open_backend("onnxruntime", graphs / "frame.onnx", device="cuda-graph", precision="f16", threads=1)
    assert next(failures, None) is None


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
