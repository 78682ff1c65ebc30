"""The way of a GPU, walked on the CPU: values that stay where they are, and numbers of objects rounded up."""
from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from cuda_runtime import FakeCudaRuntime
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from tiny_bundles import SHAPES, describe, frame_graph, save_graph, temporal_graph, write_bundle

from stmask_deploy.errors import DeviceError, InputError
from stmask_deploy.pretrained import demo_bundle
from stmask_deploy.runtime import onnxruntime_session
from stmask_deploy.runtime.backends import Backend, TensorSpec
from stmask_deploy.runtime.cuda_runtime import CudaRuntime
from stmask_deploy.runtime.onnxruntime_session import SessionMaker
from stmask_deploy.runtime.opening import open_backend
from stmask_deploy.runtime.pinned_memory import LARGE, PinnedMemory

GRAPH = demo_bundle() / "temporal.onnx"


@pytest.fixture(scope="module")
def as_on_device() -> Iterator[None]:
    """Backends that treat the CPU's memory as that of a device."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SessionMaker, "is_on_host", False)
        yield


@pytest.fixture(scope="module")
def padded(as_on_device: None) -> Backend:
    return open_backend("onnxruntime", GRAPH, device="cpu")


@pytest.fixture(scope="module")
def plain() -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(GRAPH, providers=["CPUExecutionProvider"])


@settings(max_examples=25)
@given(boxes=st.integers(0, 11).flatmap(lambda rows: arrays(np.float32, (rows, 4),
                                                            elements=st.floats(-0.5, 1.5, width=32))))
def test_padding_changes_no_other_row(plain: onnxruntime.InferenceSession, padded: Backend, boxes: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    feeds = {name: rng.uniform(0, 1, spec.shape).astype(np.float32)
             for name, spec in padded.inputs.items() if name != "boxes"} | {"boxes": boxes}
    found = padded.run(feeds)
    for name, values in zip(padded.outputs, plain.run(list(padded.outputs), feeds), strict=True):
        assert found[name].shape == values.shape == (len(boxes), values.shape[1])
        assert np.allclose(found[name], values, rtol=1e-4, atol=1e-5)


def test_only_sizes_that_occurred_have_a_session(as_on_device: None, monkeypatch: pytest.MonkeyPatch,
                                                 tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("graph") / "temporal.onnx"
    save_graph(temporal_graph(), path, describe())
    graph = open_backend("onnxruntime", path, device="cpu")
    opened = []
    open_session = SessionMaker.open
    monkeypatch.setattr(SessionMaker, "open", lambda self, *args: opened.append(args) or open_session(self, *args))
    values = {name: np.zeros(SHAPES[name.removeprefix("prev_")], np.float32)
              for name in ("prev_fpn", "fpn", "prev_temporal", "temporal")}
    for rows in (3, 4, 3, 5, 0, 1):
        assert graph.run({**values, "boxes": np.zeros((rows, 4), np.float32)})["box_deltas"].shape == (rows, 4)
    assert [sizes for _, sizes in opened] == [{"n": 4}, {"n": 8}]  # that of one row was opened first


def test_kept_outputs_are_no_arrays_and_feed_the_next_graph(as_on_device: None,
                                                            tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("graphs")
    save_graph(frame_graph(3), folder / "frame.onnx", describe())
    save_graph(temporal_graph(), folder / "temporal.onnx", describe())
    frame, temporal = (open_backend("onnxruntime", folder / f"{role}.onnx", device="cpu")
                       for role in ("frame", "temporal"))
    before, now = (frame.run({"frame": np.full((1, 40, 64, 3), level, np.uint8)}, keep=("fpn", "temporal", "nothing"))
                   for level in (51, 102))
    assert not isinstance(now["fpn"], np.ndarray) and isinstance(now["prototypes"], np.ndarray)
    assert np.allclose(before["fpn"].numpy(), 0.2)  # the next run did not overwrite it
    deltas = temporal.run({"prev_fpn": before["fpn"], "fpn": now["fpn"], "prev_temporal": before["temporal"],
                           "temporal": now["temporal"], "boxes": np.zeros((3, 4), np.float32)})
    assert deltas["box_deltas"].shape == (3, 4) and np.allclose(deltas["box_deltas"], 0.4)


def test_large_values_come_in_page_locked_memory(as_on_device: None, monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeCudaRuntime()
    memory = PinnedMemory(CudaRuntime(library), limit=2 << 20)
    asked = []
    monkeypatch.setattr(onnxruntime_session, "pinned_memory", lambda version: asked.append(version) or memory)
    frame = open_backend("onnxruntime", demo_bundle() / "frame.onnx", device="cpu")
    plain = onnxruntime.InferenceSession(demo_bundle() / "frame.onnx", providers=["CPUExecutionProvider"])
    names = ["prototypes", "boxes", "num_candidates", "fpn"]
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, frame.inputs["frame"].shape, np.uint8) for _ in range(12)]
    found = [frame.run({"frame": picture}, names, keep=("fpn",)) for picture in pictures]
    for picture, ours in zip(pictures, found, strict=True):
        for name, value in zip(names[:-1], plain.run(names[:-1], {"frame": picture}), strict=True):
            assert np.allclose(ours[name], value, atol=1e-4)
    is_pinned = [ours["prototypes"].ctypes.data in library.addresses for ours in found]
    size, picture_size = found[0]["prototypes"].nbytes, pictures[0].nbytes
    assert min(size, picture_size) >= LARGE and library.sizes.count(picture_size) == 1  # used again by every run
    assert is_pinned == [number < ((2 << 20) - picture_size) // size for number in range(12)]  # then ordinary memory
    assert any(is_pinned) and not all(is_pinned)
    assert not any(ours["boxes"].ctypes.data in library.addresses for ours in found)
    assert set(asked) == {onnxruntime.cuda_version}


def test_pinned_is_what_is_large_and_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeCudaRuntime()
    memory = PinnedMemory(CudaRuntime(library))
    monkeypatch.setattr(onnxruntime_session, "pinned_memory", lambda version: memory)
    maker = SessionMaker(onnxruntime, GRAPH, "CPUExecutionProvider", "f32", 1, None)
    large = np.arange(LARGE, dtype=np.uint8).reshape(4, -1)
    for value in (large, large.T, np.asfortranarray(large)):
        pinned = maker.pinned(value)
        assert pinned.ctypes.data in library.addresses and pinned.flags.c_contiguous
        assert pinned.dtype == value.dtype and np.array_equal(pinned, value)
    for same in (large[:3], np.zeros(0, np.float32), np.float32(3), onnxruntime.OrtValue.ortvalue_from_numpy(large),
                 np.full((4, LARGE), None, object)):
        assert maker.pinned(same) is same
    held = [maker.pinned(large) for _ in range(2000)]
    assert held[0] is not large and held[-1] is large  # there is no more such memory
    assert np.array_equal(held[0], large)


def test_no_page_locked_memory_without_cuda() -> None:
    maker = SessionMaker(onnxruntime, GRAPH, "CPUExecutionProvider", "f32", 1, None)
    if not onnxruntime.cuda_version:
        assert maker.empty_pinned(TensorSpec("float32", (LARGE,))) is None
    assert SessionMaker(object(), GRAPH, "x", "f32", 1, None).empty_pinned(TensorSpec("uint8", (LARGE,))) is None


@pytest.fixture
def failing_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA is offered, and fails with whatever it is given, out of memory perhaps."""
    session = onnxruntime.InferenceSession

    def open_session(model: Any, options: Any, providers: list[Any], **others: Any) -> Any:
        if "CUDA" in str(providers[0]):
            raise onnxruntime.capi.onnxruntime_pybind11_state.EPFail("out of memory\nat some line")
        return session(model, options, providers=providers, **others)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", open_session)


def test_a_gpu_that_fails_is_the_device_s_fault_and_a_bad_file_the_file_s(failing_gpu: None, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"device cuda cannot run it \(.*out of memory.*use device cpu") as raised:
        open_backend("onnxruntime", GRAPH, device="cuda")
    assert "\n" not in str(raised.value)
    told = open_backend("onnxruntime", GRAPH, device="auto").device
    assert "CPU" in told and "out of memory" in told
    damaged = tmp_path / "temporal.onnx"
    damaged.write_bytes(GRAPH.read_bytes()[:1000])
    for device in ("cuda", "auto"):
        with pytest.raises(InputError, match="export the checkpoint again"):
            open_backend("onnxruntime", damaged, device=device)


def test_a_session_does_not_keep_the_file() -> None:
    session = SessionMaker(onnxruntime, GRAPH, "CPUExecutionProvider", "f32", 1, None).open(["box_deltas"])
    large = [name for name, value in vars(session).items() if isinstance(value, bytes) and len(value) > 1000]
    assert large == []


def test_a_session_keeps_no_plan_for_every_number_of_objects() -> None:
    """Over a long video these would add up."""
    session = SessionMaker(onnxruntime, GRAPH, "CPUExecutionProvider", "f32", 1, None).open()
    assert not session.get_session_options().enable_mem_pattern


def test_another_file_in_its_place_is_told(tmp_path: Path) -> None:
    """A choice of outputs is loaded when it is first asked for, which may be hours after the check."""
    folder = write_bundle(tmp_path / "bundle")
    backend = open_backend("onnxruntime", folder / "frame.onnx", device="cpu")
    feeds = {"frame": np.zeros((1, 40, 64, 3), np.uint8)}
    assert set(backend.run(feeds, ("boxes",))) == {"boxes"}
    save_graph(frame_graph(2), folder / "frame.onnx", describe(export_id="another"))
    assert set(backend.run(feeds, ("boxes",))) == {"boxes"}
    with pytest.raises(InputError, match=r"frame\.onnx was replaced while it was in use"):
        backend.run(feeds, ("centerness",))


def external(graph: Path, location: str, length: int) -> Path:
    """`graph`, with the values of one weight in a file of their own."""
    model = onnx.load(graph)
    weight = next(one for one in model.graph.initializer if one.name == "prototypes_")
    weight.ClearField("raw_data")
    weight.ClearField("float_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
        entry = weight.external_data.add()
        entry.key, entry.value = key, value
    graph.write_bytes(model.SerializeToString())
    return graph


@pytest.mark.parametrize("outputs", [None, ("prototypes",)])
def test_weights_in_other_files_are_read_beside_the_graph_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                                outputs: tuple[str, ...] | None) -> None:
    values, pixels = np.full((16, 16, 4), 7, np.float32), {"frame": np.full((1, 40, 64, 3), 200, np.uint8)}
    for place in ("bundle", "here"):
        (tmp_path / place).mkdir()
    for secret in (tmp_path / "here" / "w.bin", tmp_path / "secret.bin"):
        secret.write_bytes(values.tobytes())
    monkeypatch.chdir(tmp_path / "here")
    graph = tmp_path / "bundle" / "frame.onnx"

    def opened(location: str) -> Backend:
        save_graph(frame_graph(1), graph, describe())
        return open_backend("onnxruntime", external(graph, location, values.nbytes), device="cpu", outputs=outputs)

    (tmp_path / "bundle" / "link.bin").symlink_to(tmp_path / "secret.bin")
    for location in ("w.bin", "../secret.bin", str(tmp_path / "secret.bin"), "link.bin"):
        with pytest.raises(InputError, match="frame.onnx: ONNX Runtime .* cannot load it"):
            opened(location)
    (tmp_path / "bundle" / "w.bin").write_bytes(values.tobytes())
    assert np.array_equal(opened("w.bin").run(pixels, ("prototypes",))["prototypes"], values)
    odd = (tmp_path / "bundle").rename(tmp_path / os.fsdecode(b"not\xfftext"))
    with pytest.raises(InputError, match="cannot load it"):  # cannot be named to ONNX Runtime
        open_backend("onnxruntime", odd / "frame.onnx", device="cpu", outputs=outputs)
