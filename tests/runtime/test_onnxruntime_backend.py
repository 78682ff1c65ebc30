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
from stmask_deploy.runtime.cuda_runtime import CudaRuntime, CudaStream
from stmask_deploy.runtime.loading import open_bundle
from stmask_deploy.runtime.onnxruntime_providers import CPU, CUDA, TENSORRT
from stmask_deploy.runtime.onnxruntime_session import SessionMaker
from stmask_deploy.runtime.opening import open_backend


class FakeGpu:
    """ONNX Runtime with providers of a GPU that compute on the CPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, library: FakeCudaRuntime) -> None:
        self.asked: list[dict[str, str]] = []  # options of the provider, by session
        self.skipped: list[list[str]] = []  # optimisations of ONNX Runtime, likewise
        session_class = onnxruntime.InferenceSession

        def open_session(model: Any, options: Any, providers: list[Any], **others: Any) -> Any:
            session = session_class(model, options, providers=[CPU], **others)
            provider = providers[0][0]
            if provider == CPU:
                return session
            self.asked.append(providers[0][1])
            self.skipped.append(others["disabled_optimizers"])
            monkeypatch.setattr(session, "get_providers", lambda: [provider, CPU], raising=False)
            return CapturableSession(session, library)

        runtime = CudaRuntime(library)
        monkeypatch.setattr(onnxruntime_session, "cuda_runtime", lambda version: runtime)
        monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA, CPU])
        monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)
        monkeypatch.setattr(SessionMaker, "memory", "cpu")


def test_launches_are_recorded_where_that_is_asked_for(graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeCudaRuntime()
    gpu = FakeGpu(monkeypatch, library)
    frame = open_backend("onnxruntime", graphs / "frame.onnx", device="cuda-graph")
    assert np.allclose(frame.run(picture(51))["fpn"], 0.2)
    [options] = gpu.asked
    assert options["user_compute_stream"] == "1" and library.num_streams == 1
    assert gpu.skipped == [["GatherSliceToSplitFusion"]]
    assert len(library.launched) == 2  # once when it is opened
    assert "CUDA graphs" in frame.device


def test_they_are_not_otherwise(graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeCudaRuntime()
    gpu = FakeGpu(monkeypatch, library)
    frame = open_backend("onnxruntime", graphs / "frame.onnx", device="cuda")
    assert "user_compute_stream" not in gpu.asked[0] and library.num_streams == 0
    assert "CUDA" in frame.device and "graphs" not in frame.device


def test_tensorrt_builds_engines_only_for_sizes_that_occur(graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(monkeypatch, FakeCudaRuntime())
    temporal = open_backend("onnxruntime", graphs / "temporal.onnx", device="tensorrt")
    assert len(gpu.asked) == 1  # for no size
    for count in (3, 4):
        found = temporal.run({**MAP_VALUES, "boxes": np.zeros((count, 4), np.float32)})
        assert found["box_deltas"].shape == (count, 4)
    assert len(gpu.asked) == 2 and "TensorRT" in temporal.device


def test_auto_records(graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeCudaRuntime()
    gpu = FakeGpu(monkeypatch, library)
    frame = open_backend("onnxruntime", graphs / "frame.onnx", device="auto")
    assert np.allclose(frame.run(picture(51))["fpn"], 0.2) and len(library.launched) == 2
    assert frame.device.endswith("CUDA graphs (chosen by auto)") and len(gpu.asked) == 1


@pytest.mark.parametrize(("failing", "reason"), [
    ("nodes", "functions of the host"), ("launch", "cudaGraphLaunch: CUDA failure 2"),
    ("wait", "cudaStreamSynchronize: CUDA failure 700"),
    ("version", "needs ONNX Runtime 1.31 or newer, and this is 1.30.1; update onnxruntime-gpu")])
def test_auto_does_without_recording_where_that_fails(failing: str, reason: str, graphs: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeCudaRuntime()
    if failing == "nodes":
        library.node_kinds = [3]
    elif failing == "launch":
        library.fails["cudaGraphLaunch"] = 2
    elif failing == "wait":  # for what was launched
        launch = CudaStream.launch

        def launch_and_fail(self: CudaStream, graph: Any) -> None:
            launch(self, graph)
            library.fails["cudaStreamSynchronize"] = 700

        monkeypatch.setattr(CudaStream, "launch", launch_and_fail)
    else:
        monkeypatch.setattr(onnxruntime, "__version__", "1.30.1")
    FakeGpu(monkeypatch, library)
    with pytest.raises(DeviceError, match=f"device cuda-graph .*{reason}.* use device cuda$"):
        open_backend("onnxruntime", graphs / "frame.onnx", device="cuda-graph")
    frame, temporal = (open_backend("onnxruntime", graphs / f"{role}.onnx", device="auto")
                       for role in ("frame", "temporal"))
    tried = len(library.launched)
    maps = frame.run(picture(51), keep=("fpn", "temporal"))
    deltas = temporal.run({"prev_fpn": maps["fpn"], "fpn": maps["fpn"], "prev_temporal": maps["temporal"],
                           "temporal": maps["temporal"], "boxes": np.zeros((3, 4), np.float32)})
    assert deltas["box_deltas"].shape == (3, 4) and len(library.launched) == tried and not frame.is_on_host
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


def test_without_cudnn_a_bundle_is_opened_as_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """With prototypes inside boxes alone, too, for which a GPU has no use."""
    def fail(*args: Any) -> None:
        raise RuntimeError("cuDNN is unavailable")

    FakeGpu(monkeypatch, FakeCudaRuntime())
    monkeypatch.setattr(CapturableSession, "run_with_iobinding", fail)
    roles = [open_bundle(demo_bundle(), device=device).roles for device in ("auto", "cpu")]
    assert roles[0] == roles[1] and "prototypes" in roles[0]


def test_a_first_run_has_valid_values(graphs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Anything but 0 could be a row index out of range."""
    given: list[Any] = []
    run = onnxruntime_backend.run_on_device
    monkeypatch.setattr(onnxruntime_backend, "run_on_device",
                        lambda session, inputs, places: given.append(inputs) or run(session, inputs, places))
    FakeGpu(monkeypatch, FakeCudaRuntime())
    temporal = open_backend("onnxruntime", graphs / "temporal.onnx", device="cuda")
    [inputs] = given
    assert set(inputs) == set(temporal.inputs) and not any(value.any() for value in inputs.values())
    assert inputs["boxes"].shape == (1, 4)


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


@pytest.mark.parametrize("kind", [TimeoutError, type("SoftTimeLimit", (Exception,), {})])
def test_what_a_handler_of_a_signal_raises_is_no_failure_of_the_graph(kind: type[Exception],
                                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> Any:
        raise kind("time is up")

    graph = open_backend("onnxruntime", demo_bundle() / "prototypes.onnx", device="cpu")
    monkeypatch.setattr(graph, "_runner_for", lambda *_: interrupted)
    with pytest.raises(kind, match="^time is up$"):
        graph.run({"p3": np.zeros((1, 64, 24, 40), np.float32)})
