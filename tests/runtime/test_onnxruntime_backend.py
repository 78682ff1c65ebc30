"""The choice among ways to run on a GPU, by an ONNX Runtime that computes on the CPU where CUDA is asked for."""
from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from cuda_runtime import FakeCudaRuntime
from recorded_graphs import MAP_VALUES, CapturableSession, picture

from stmask_deploy.errors import DeviceError
from stmask_deploy.pretrained import demo_bundle
from stmask_deploy.runtime import onnxruntime_backend, onnxruntime_session
from stmask_deploy.runtime.cuda_runtime import CudaRuntime
from stmask_deploy.runtime.onnxruntime_providers import CPU, CUDA, TENSORRT
from stmask_deploy.runtime.onnxruntime_session import SessionMaker
from stmask_deploy.runtime.opening import open_backend


class FakeGpu:
    """ONNX Runtime with a CUDA provider that computes on the CPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, library: FakeCudaRuntime) -> None:
        self.asked: list[dict[str, str]] = []  # options of CUDA, by session
        session_class = onnxruntime.InferenceSession

        def open_session(model: Any, options: Any, providers: list[Any], **others: Any) -> Any:
            session = session_class(model, options, providers=[CPU], **others)
            if providers[0][0] != CUDA:
                return session
            self.asked.append(providers[0][1])
            monkeypatch.setattr(session, "get_providers", lambda: [CUDA, CPU], raising=False)
            return CapturableSession(session, library)

        runtime = CudaRuntime(library)
        monkeypatch.setattr(onnxruntime_session, "cuda_runtime", lambda version: runtime)
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, CPU])
        monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)
        monkeypatch.setattr(SessionMaker, "memory", "cpu")


def test_launches_are_recorded_where_that_is_asked_for(graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeCudaRuntime()
    gpu = FakeGpu(monkeypatch, library)
    frame = open_backend("onnxruntime", graphs / "frame.onnx", device="cuda-graph")
    assert np.allclose(frame.run(picture(51))["fpn"], 0.2)
    [options] = gpu.asked
    assert options["user_compute_stream"] == "1" and library.num_streams == 1
    assert len(library.launched) == 2  # once when it is opened
    assert "CUDA graphs" in frame.device


def test_they_are_not_otherwise(graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeCudaRuntime()
    gpu = FakeGpu(monkeypatch, library)
    frame = open_backend("onnxruntime", graphs / "frame.onnx", device="cuda")
    assert "user_compute_stream" not in gpu.asked[0] and library.num_streams == 0
    assert "CUDA" in frame.device and "graphs" not in frame.device


def test_auto_records(graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeCudaRuntime()
    gpu = FakeGpu(monkeypatch, library)
    frame = open_backend("onnxruntime", graphs / "frame.onnx", device="auto")
    assert np.allclose(frame.run(picture(51))["fpn"], 0.2) and len(library.launched) == 2
    assert frame.device.endswith("CUDA graphs (chosen by auto)") and len(gpu.asked) == 1


@pytest.mark.parametrize(("failing", "reason"), [
    ("nodes", "functions of the host"), ("launch", "cudaGraphLaunch: CUDA failure 2"),
    ("version", "needs ONNX Runtime 1.31 or newer, and this is 1.30.1; update onnxruntime-gpu")])
def test_auto_does_without_recording_where_that_fails(failing: str, reason: str, graphs: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeCudaRuntime()
    if failing == "nodes":
        library.node_kinds = [3]
    elif failing == "launch":
        library.fails["cudaGraphLaunch"] = 2
    else:
        monkeypatch.setattr(onnxruntime, "__version__", "1.30.1")
    FakeGpu(monkeypatch, library)
    with pytest.raises(DeviceError, match=f"device cuda-graph .*{reason}.* use device cuda$"):
        open_backend("onnxruntime", graphs / "frame.onnx", device="cuda-graph")
    frame, temporal = (open_backend("onnxruntime", graphs / f"{role}.onnx", device="auto")
                       for role in ("frame", "temporal"))
    maps = frame.run(picture(51), keep=("fpn", "temporal"))
    deltas = temporal.run({"prev_fpn": maps["fpn"], "fpn": maps["fpn"], "prev_temporal": maps["temporal"],
                           "temporal": maps["temporal"], "boxes": np.zeros((3, 4), np.float32)})
    assert deltas["box_deltas"].shape == (3, 4) and not library.launched and not frame.is_on_host
    assert "CUDA (" in frame.device and reason in frame.device


@pytest.mark.parametrize("version", ["1.31.0", "1.32.0.dev20261101", "2.0"])
def test_versions_that_can_be_recorded(version: str, graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeGpu(monkeypatch, FakeCudaRuntime())
    monkeypatch.setattr(onnxruntime, "__version__", version)
    assert "CUDA graphs" in open_backend("onnxruntime", graphs / "frame.onnx", device="cuda-graph").device


def test_a_gpu_that_fails_in_its_first_run_is_not_used(graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime opens sessions without cuDNN."""
    def fail(*args: Any) -> None:
        raise RuntimeError("[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : cuDNN is unavailable")

    gpu = FakeGpu(monkeypatch, FakeCudaRuntime())
    monkeypatch.setattr(CapturableSession, "run_with_iobinding", fail)
    for role in ("frame", "temporal"):
        with pytest.raises(DeviceError, match="device cuda cannot run it .*cuDNN is unavailable.* or use device cpu$"):
            open_backend("onnxruntime", graphs / f"{role}.onnx", device="cuda")
    assert len(gpu.asked) == 3  # of the temporal graph one for any number of boxes, then one for one box
    frame = open_backend("onnxruntime", graphs / "frame.onnx", device="auto")
    assert frame.is_on_host and np.allclose(frame.run(picture(51))["fpn"], 0.2)
    assert "CPU" in frame.device and "cuDNN is unavailable" in frame.device


@pytest.mark.parametrize(("num_devices", "code"), [(0, 0), (0, 100), (1, 35)])
def test_without_a_gpu_no_session_is_opened_for_one(num_devices: int, code: int, graphs: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeCudaRuntime()
    library.num_devices = num_devices
    if code:
        library.fails["cudaGetDeviceCount"] = code
    gpu = FakeGpu(monkeypatch, library)
    reason = f"failure {code}: error {code}" if code else "there is no device"
    for device in ("cuda", "cuda-graph"):
        with pytest.raises(DeviceError, match=f"device {device} finds no GPU .*{reason}.*driver, or use device cpu$"):
            open_backend("onnxruntime", graphs / "frame.onnx", device=device)
    frame = open_backend("onnxruntime", graphs / "frame.onnx", device="auto")
    assert frame.is_on_host and reason in frame.device and not gpu.asked


@pytest.mark.parametrize("device", ["auto", "cuda-graph"])
def test_a_size_that_cannot_be_recorded_later(graphs: Path, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of a video there may be too little memory for one more capture: auto goes on without."""
    library = FakeCudaRuntime()
    FakeGpu(monkeypatch, library)
    temporal = open_backend("onnxruntime", graphs / "temporal.onnx", device=device)
    library.fails["cudaGraphInstantiate"] = 2
    boxes = {count: np.zeros((count, 4), np.float32) for count in (1, 3, 9)}
    assert temporal.run({**MAP_VALUES, "boxes": boxes[1]})["box_deltas"].shape == (1, 4)  # captured before
    if device == "cuda-graph":
        with pytest.raises(DeviceError, match="cannot record it .*failure 2: .*use device cuda$"):
            temporal.run({**MAP_VALUES, "boxes": boxes[3]})
        return
    found = temporal.run({**MAP_VALUES, "boxes": boxes[3]})
    assert found["box_deltas"].shape == (3, 4) and len(library.launched) == 2
    library.fails = {}
    temporal.run({**MAP_VALUES, "boxes": boxes[3]})
    assert len(library.launched) == 2  # not tried again in every frame

    open_session = onnxruntime.InferenceSession

    def refuse(model: Any, options: Any, providers: list[Any], **others: Any) -> Any:
        if providers[0][0] == CUDA:
            raise RuntimeError("out of memory")
        return open_session(model, options, providers, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(DeviceError, match="device cuda cannot run it .*out of memory.*use device cpu$"):
        temporal.run({**MAP_VALUES, "boxes": boxes[9]})


def test_without_the_runtime_s_library_nothing_is_recorded(graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeGpu(monkeypatch, FakeCudaRuntime())
    monkeypatch.setattr(onnxruntime_session, "cuda_runtime", lambda version: None)
    with pytest.raises(DeviceError, match="cuda-graph needs CUDA's runtime library, which cannot be loaded.*; use "
                                          "device cuda$"):
        open_backend("onnxruntime", graphs / "frame.onnx", device="cuda-graph")


def test_a_refusal_names_the_device_and_the_next_best(graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session_class = onnxruntime.InferenceSession

    def refuse(model: Any, options: Any, providers: list[Any], **others: Any) -> Any:
        if providers[0][0] == CUDA:
            raise RuntimeError("This session cannot be opened")
        return session_class(model, options, providers=providers, **others)

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    maker = SessionMaker(onnxruntime, graphs / "frame.onnx", CUDA, "f32", None, None, is_recorded=True)
    with pytest.raises(DeviceError, match="device cuda-graph cannot run it .*cannot be opened.* or use device cuda$"):
        maker.open()
    assert maker.memory == "cuda"
    refusal = replace(maker, provider=TENSORRT, is_recorded=False).refusal(RuntimeError("no library"))
    assert re.search("tensorrt cannot run it .*no library.*TensorRT 10 .* or use device cuda$", str(refusal))


def test_nothing_is_padded_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    run = onnxruntime_backend.run_on_host
    monkeypatch.setattr(onnxruntime_backend, "run_on_host", lambda session, inputs, *others: (
        sizes.append(len(inputs["boxes"])), run(session, inputs, *others))[1])
    graph = open_backend("onnxruntime", demo_bundle() / "temporal.onnx", device="cpu")
    maps = {name: np.zeros([size or 0 for size in spec.shape], np.float32) for name, spec in graph.inputs.items()}
    for count in (3, 17):
        found = graph.run({**maps, "boxes": np.zeros((count, 4), np.float32)})
        assert {len(values) for values in found.values()} == {count}
    assert sizes == [3, 17]
