"""Sessions as CUDA graphs need them, walked on the CPU: addresses and thread stay the same, values are copied."""
from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_bundles import SHAPES, describe, frame_graph, save_graph, temporal_graph

import stmask_deploy
from stmask_deploy.errors import StmaskError
from stmask_deploy.pretrained import demo_bundle, demo_clip
from stmask_deploy.runtime import onnxruntime_backend
from stmask_deploy.runtime.backends import Backend, open_backend
from stmask_deploy.runtime.onnxruntime_providers import CPU
from stmask_deploy.runtime.onnxruntime_session import SessionMaker

MAPS = ("prev_fpn", "fpn", "prev_temporal", "temporal")


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """`cuda-graph` computes on the CPU, with the CPU's memory as the device's."""
    monkeypatch.setattr(SessionMaker, "is_on_host", False)
    monkeypatch.setattr(onnxruntime_backend, "choose_provider", lambda ort, device: (CPU, ""))


def open_recorded(graph: Path) -> Backend:
    return open_backend("onnxruntime", graph, device="cuda-graph", threads=1)


@pytest.fixture
def graphs(tmp_path: Path) -> Path:
    save_graph(frame_graph(3), tmp_path / "frame.onnx", describe())
    save_graph(temporal_graph(), tmp_path / "temporal.onnx", describe())
    return tmp_path


def picture(level: int) -> dict[str, np.ndarray]:
    return {"frame": np.full((1, 40, 64, 3), level, np.uint8)}


class Watched:
    """A session that notes where each run finds its outputs, and which thread runs it."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.addresses: list[tuple[int, ...]] = []
        self.threads: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.session, name)

    def run_with_iobinding(self, binding: Any) -> None:
        self.session.run_with_iobinding(binding)
        self.addresses.append(tuple(value.data_ptr() for value in binding.get_outputs()))
        self.threads.add(threading.get_ident())


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[Watched]:
    sessions: list[Watched] = []
    open_session = SessionMaker.open

    def open_watched(self: SessionMaker, *args: Any) -> Watched:
        sessions.append(Watched(open_session(self, *args)))
        return sessions[-1]

    monkeypatch.setattr(SessionMaker, "open", open_watched)
    return sessions


def test_addresses_and_thread_stay_the_same_whoever_runs(recorded: None, watched: list[Watched], graphs: Path) -> None:
    frame = open_recorded(graphs / "frame.onnx")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda level: frame.run(picture(level), keep=("fpn",)), range(40)))
    [session] = watched
    assert len(session.addresses) == 40 and len(set(session.addresses)) == 1
    assert len(session.threads) == 1 and threading.get_ident() not in session.threads


def test_threads_do_not_get_each_others_values(recorded: None, graphs: Path) -> None:
    frame = open_recorded(graphs / "frame.onnx")

    def run(level: int) -> float:
        outputs = ("fpn", "boxes") if level % 2 else None
        return float(frame.run(picture(level), outputs)["fpn"].max())

    levels = list(range(1, 200))
    with ThreadPoolExecutor(4) as pool:
        assert np.allclose(list(pool.map(run, levels)), np.array(levels) / 255)


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


def test_what_a_graph_does_not_take_is_refused_and_not_remembered(recorded: None, graphs: Path) -> None:
    temporal = open_recorded(graphs / "temporal.onnx")
    feeds = {name: np.full(SHAPES[name.removeprefix("prev_")], 0.4, np.float32) for name in MAPS}
    feeds["boxes"] = np.zeros((2, 4), np.float32)
    good = temporal.run(feeds)
    wrong = [({"fpn": None}, "fpn is missing"),
             ({"boxes": np.zeros((2, 4))}, "boxes: expected float32 .*float64"),
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


def test_the_thread_ends_with_the_backend(recorded: None, graphs: Path) -> None:
    def ours() -> Iterator[threading.Thread]:
        return (thread for thread in threading.enumerate() if thread.name.startswith("cuda-graph"))

    gc.collect()
    others = set(ours())
    frame = open_recorded(graphs / "frame.onnx")
    frame.run(picture(1))
    [thread] = set(ours()) - others
    del frame
    gc.collect()
    thread.join(timeout=10)
    assert not thread.is_alive()


def test_the_device_is_told(recorded: None, graphs: Path) -> None:
    assert "graphs" in open_recorded(graphs / "frame.onnx").device


@pytest.mark.gpu
def test_a_recorded_graph_gives_what_cuda_gives() -> None:
    path = demo_bundle() / "frame.onnx"
    rng = np.random.default_rng(0)
    plain, ours = (open_backend("onnxruntime", path, device=device) for device in ("cuda", "cuda-graph"))
    for _ in range(4):
        feeds = {"frame": rng.integers(0, 256, plain.inputs["frame"].shape, np.uint8)}
        expected, found = plain.run(feeds), ours.run(feeds)
        assert all(np.allclose(found[name], value, rtol=1e-3, atol=1e-4) for name, value in expected.items())
