"""Both backends compute the same, say what they use, and refuse what they cannot do."""
from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from tiny_bundles import BOXES, SHAPES, describe, frame_graph, picture, save_graph, save_ir, temporal_graph

from stmask_deploy.bundle import FRAME_OUTPUTS, TEMPORAL_OUTPUTS
from stmask_deploy.errors import DeviceError, InputError, StmaskError
from stmask_deploy.runtime.backends import BACKENDS, TensorSpec, one_line
from stmask_deploy.runtime.opening import open_backend
from stmask_deploy.runtime.openvino_backend import shared_core
from stmask_deploy.runtime.preprocess import preprocess

DESCRIPTION = describe()


def graph_path(bundle: Path, role: str, backend: str) -> Path:
    return DESCRIPTION.graph_path(bundle, role, backend)


@pytest.mark.parametrize("name", BACKENDS)
def test_frame_graph_runs(bundle: Path, name: str) -> None:
    backend = open_backend(name, graph_path(bundle, "frame", name), device="cpu", threads=1)
    assert list(backend.inputs) == ["frame"]
    assert set(backend.outputs) == set(FRAME_OUTPUTS)
    assert backend.inputs["frame"] == TensorSpec("uint8", (1, 40, 64, 3))
    assert {key: spec.shape for key, spec in backend.outputs.items()} == {k: tuple(v) for k, v in SHAPES.items()}
    assert backend.metadata == DESCRIPTION
    outputs = backend.run({"frame": preprocess(picture(51), DESCRIPTION.model)[0]})
    assert np.allclose(outputs["boxes"], BOXES + np.float32([0.04, 0, 0.04, 0]), atol=1e-6)
    assert (outputs["num_candidates"].shape, outputs["num_candidates"].dtype, int(outputs["num_candidates"])) == (
        (), np.int64, 3)
    assert np.allclose(outputs["fpn"], 0.2)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("rows", [0, 1, 7])
def test_temporal_graph_takes_any_number_of_objects(bundle: Path, name: str, rows: int) -> None:
    backend = open_backend(name, graph_path(bundle, "temporal", name), device="cpu")
    assert set(backend.outputs) == set(TEMPORAL_OUTPUTS)
    assert backend.inputs["boxes"].shape == (None, 4)
    maps = {key: np.full(SHAPES[key.removeprefix("prev_")], value, np.float32) for key, value in
            (("prev_fpn", 0.1), ("fpn", 0.4), ("prev_temporal", 0.1), ("temporal", 0.4))}
    outputs = backend.run({**maps, "boxes": np.ones((rows, 4), np.float32)})
    assert outputs["box_deltas"].shape == outputs["coeff_deltas"].shape == (rows, 4)
    assert np.allclose(outputs["box_deltas"], 0.6)


@pytest.mark.parametrize("name", BACKENDS)
def test_outputs_outlive_the_next_run(bundle: Path, name: str) -> None:
    backend = open_backend(name, graph_path(bundle, "frame", name))
    first = backend.run({"frame": preprocess(picture(51), DESCRIPTION.model)[0]})
    before = {key: value.copy() for key, value in first.items()}
    backend.run({"frame": preprocess(picture(255), DESCRIPTION.model)[0]})
    assert all(np.array_equal(first[key], before[key]) for key in first)


@pytest.mark.parametrize("name", BACKENDS)
def test_only_what_is_asked_for_is_returned(bundle: Path, name: str) -> None:
    backend = open_backend(name, graph_path(bundle, "frame", name), device="cpu")
    feeds = {"frame": preprocess(picture(51), DESCRIPTION.model)[0]}
    whole = backend.run(feeds)
    for asked in (("num_candidates", "boxes"), ("boxes", "num_candidates"), ("fpn",), ("fpn", "fpn"), ()):
        part = backend.run(feeds, asked, keep=("fpn", "prototypes"))
        assert tuple(part) == tuple(dict.fromkeys(asked))
        assert all(np.array_equal(part[key], whole[key]) for key in part)
    assert all(np.array_equal(backend.run(feeds)[key], whole[key]) for key in whole)  # the whole graph is as it was
    with pytest.raises(InputError, match="no output mask, fpm; it has: .*boxes"):
        backend.run(feeds, ["mask", "fpn", "fpm"])


@pytest.mark.parametrize("name", BACKENDS)
def test_what_is_kept_goes_into_the_temporal_graph(bundle: Path, name: str) -> None:
    frame, temporal = (open_backend(name, graph_path(bundle, role, name), device="cpu")
                       for role in ("frame", "temporal"))
    before, now = (frame.run({"frame": preprocess(picture(level), DESCRIPTION.model)[0]}, keep=("fpn", "temporal"))
                   for level in (51, 102))
    outputs = temporal.run({"prev_fpn": before["fpn"], "fpn": now["fpn"], "prev_temporal": before["temporal"],
                            "temporal": now["temporal"], "boxes": np.zeros((2, 4), np.float32)}, ("box_deltas",))
    assert np.allclose(outputs["box_deltas"], 0.4) and len(outputs) == 1


@pytest.mark.parametrize("name", BACKENDS)
def test_threads_do_not_get_each_others_values(bundle: Path, name: str) -> None:
    backend = open_backend(name, graph_path(bundle, "frame", name), device="cpu", threads=1)

    def run(level: int) -> float:
        outputs = ("fpn", "boxes") if level % 2 else None
        return float(backend.run({"frame": np.full((1, 40, 64, 3), level, np.uint8)}, outputs)["fpn"].max())

    levels = list(range(1, 200))
    with ThreadPoolExecutor(4) as pool:
        assert np.allclose(list(pool.map(run, levels)), np.array(levels) / 255)


@pytest.mark.parametrize(("name", "library"), [("onnxruntime", "ONNX Runtime"), ("openvino", "OpenVINO")])
def test_what_is_used_is_told(bundle: Path, name: str, library: str) -> None:
    told = open_backend(name, graph_path(bundle, "frame", name), device="cpu", threads=1).device
    assert told.startswith(library) and "f32" in told and "CPU" in told and "1 thread" in told
    assert "chosen by auto" in open_backend(name, graph_path(bundle, "frame", name)).device


@pytest.mark.parametrize(("name", "device", "precision", "threads", "told"), [
    ("tensorrt", "auto", "f32", None, "known: onnxruntime, openvino"),
    ("onnxruntime", "gpu", "f32", None, "gpu belongs to backend openvino"),
    ("openvino", "cuda", "f32", None, "cuda belongs to backend onnxruntime"),
    ("onnxruntime", "tpu", "f32", None, "auto, cpu, cuda, cuda-graph, tensorrt$"),
    ("onnxruntime", "cpu", "bf16", None, "only in f32, f16, int8; for bf16 use backend openvino"),
    ("openvino", "tensorrt", "f32", None, "tensorrt belongs to backend onnxruntime"),
    ("openvino", "cpu", "int4", None, "known: f32, bf16, f16, int8"),
    ("onnxruntime", "cuda", "int8", None, "use precision f16"),
    ("openvino", "cpu", "f32", 0, "threads must be a whole number from 1"),
])
def test_impossible_requests_are_refused(bundle: Path, name: str, device: str, precision: str, threads: int | None,
                                         told: str) -> None:
    with pytest.raises(InputError, match=told):
        open_backend(name, bundle / "frame.onnx", device=device, precision=precision, threads=threads)


def test_a_missing_cuda_device_is_no_silent_fallback(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(DeviceError, match="available: .*CPUExecutionProvider"):
            open_backend("onnxruntime", bundle / "frame.onnx", device="cuda")
    # A library that offers CUDA on a machine whose driver does not: the session silently comes out on the CPU.
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda _: ["CPUExecutionProvider"])
    with pytest.warns(UserWarning, match="CUDA"), pytest.raises(DeviceError, match="would use CPUExecutionProvider"):
        open_backend("onnxruntime", bundle / "frame.onnx", device="cuda")
    with pytest.warns(UserWarning, match="CUDA"):
        told = open_backend("onnxruntime", bundle / "frame.onnx", device="auto").device
    assert "CPU" in told and "would use CPUExecutionProvider" in told


def test_a_missing_intel_gpu_is_told(bundle: Path) -> None:
    if any(name.startswith("GPU") for name in shared_core().available_devices):
        pytest.skip("this machine has an Intel GPU")
    with pytest.raises(DeviceError, match="available: CPU"):
        open_backend("openvino", graph_path(bundle, "frame", "openvino"), device="gpu")


def test_openvino_precision_is_used_or_refused(bundle: Path) -> None:
    capabilities = shared_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    path = graph_path(bundle, "frame", "openvino")
    for precision, capability in (("bf16", "BF16"), ("f16", "FP16")):
        if capability in capabilities:
            assert precision in open_backend("openvino", path, device="cpu", precision=precision).device
        else:
            with pytest.raises(DeviceError, match=f"precision {precision} was asked for but"):
                open_backend("openvino", path, device="cpu", precision=precision)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_missing_library_is_told_with_the_cure(bundle: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [other] = set(BACKENDS) - {name}
    for missing, end in ((name, rf", or use backend {other}$"), (other, r"(\]|GPUs)$")):  # then both are missing
        monkeypatch.setitem(sys.modules, missing, None)
        with pytest.raises(DeviceError, match=rf"backend {name} is not installed .* install stmask-deploy\[.*{end}"):
            open_backend(name, graph_path(bundle, "frame", name))


@pytest.mark.parametrize("name", BACKENDS)
def test_ctrl_c_during_the_import_is_no_missing_library(bundle: Path, tmp_path: Path, name: str,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / f"{name}.py").write_text("try:\n    raise KeyboardInterrupt\n"
                                         "except KeyboardInterrupt as error:\n"
                                         "    raise ImportError('initialization failed') from error\n")  # as pybind11
    monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        open_backend(name, graph_path(bundle, "frame", name))


@pytest.mark.parametrize("name", BACKENDS)
def test_foreign_graphs_are_refused(tmp_path: Path, name: str) -> None:
    save_graph(temporal_graph(), tmp_path / "frame.onnx", None)
    save_ir(tmp_path / "frame.onnx", graph_path(tmp_path, "frame", "openvino"), None)
    with pytest.raises(InputError, match="was not exported by this tool"):
        open_backend(name, graph_path(tmp_path, "frame", name))


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("content", ["empty", "noise", "cut"])
def test_damaged_graphs_end_in_one_line(tmp_path: Path, name: str, content: str) -> None:
    save_graph(frame_graph(3), tmp_path / "frame.onnx", DESCRIPTION)
    path = graph_path(tmp_path, "frame", name)
    if name == "openvino":
        save_ir(tmp_path / "frame.onnx", path, DESCRIPTION)
    whole = path.read_bytes()
    noise = np.random.default_rng(0).bytes(1000)
    path.write_bytes({"empty": b"", "noise": noise, "cut": whole[:len(whole) // 2]}[content])
    with pytest.raises(InputError) as caught:
        open_backend(name, path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", BACKENDS)
def test_an_input_that_is_missing_is_not_that_of_the_run_before(bundle: Path, name: str) -> None:
    backend = open_backend(name, graph_path(bundle, "temporal", name), device="cpu")
    inputs = {key: np.ones(SHAPES[key.removeprefix("prev_")], np.float32)
              for key in ("prev_fpn", "fpn", "prev_temporal", "temporal")}
    backend.run({**inputs, "boxes": np.ones((2, 4), np.float32)})
    with pytest.raises(InputError, match="the graph needs boxes, which was not given"):
        backend.run(inputs)


@pytest.mark.parametrize("name", BACKENDS)
def test_a_failure_in_the_graph_is_one_line(bundle: Path, name: str) -> None:
    backend = open_backend(name, graph_path(bundle, "frame", name))
    with pytest.raises(StmaskError, match="failed in the graph") as caught:
        backend.run({"frame": np.zeros((1, 2, 2, 3), np.uint8)})
    assert "\n" not in str(caught.value)


def test_one_line() -> None:
    assert one_line(RuntimeError("Exception from src/a.cpp:1:\n  what happened\n\nand more\n")) == (
        "what happened and more")
    assert one_line(ValueError()) == "ValueError"
    assert len(one_line(ValueError("x" * 999))) == 200
    text = one_line(ValueError("begins " + "x" * 999 + " ends"))
    assert len(text) == 200 and text.startswith("begins ") and text.endswith(" ends") and "x ... x" in text


@pytest.mark.parametrize(("text", "told"), [
    ("/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:154 std::conditional_t<THRW, void, "
     "onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE, const char*, const char*, SUCCTYPE, const char*, "
     "const char*, int) [with ERRTYPE = cudaError; bool THRW = true; SUCCTYPE = cudaError; std::conditional_t<THRW, "
     "void, common::Status> = void] CUDA failure 100: no CUDA-capable device is detected ; GPU=-1 ; hostname=box ; "
     "file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider.cc ; line=315 ; "
     "expr=cudaSetDevice(info_.device_id);", "CUDA failure 100: no CUDA-capable device is detected"),
    ("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : /onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 void* "
     "onnxruntime::BFCArena::AllocateRawInternal(size_t, bool, onnxruntime::Stream*) const Failed to allocate memory "
     "for requested buffer of size 1073741824",
     "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer of size 1073741824"),
])
def test_places_in_onnx_runtime_s_code_are_not_told(text: str, told: str) -> None:
    assert one_line(RuntimeError(text)) == told
