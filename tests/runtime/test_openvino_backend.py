"""What OpenVINO does to the process it runs in."""
from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from mapped_files import mapped
from tiny_bundles import describe

from stmask_deploy.bundle import BundleDescription, read_description
from stmask_deploy.errors import DeviceError, InputError, StmaskError
from stmask_deploy.pretrained import demo_bundle
from stmask_deploy.runtime import openvino_backend, weight_files, winograd
from stmask_deploy.runtime.opening import open_backend
from stmask_deploy.runtime.openvino_tuning import Tuning, tuning
from stmask_deploy.runtime.openvino_winograd import convolutions_to_expand

TUNED = Tuning(columns=3, whole_from=0.8)
SCRIPT = """
import os, signal, sys
from pathlib import Path
from stmask_deploy.runtime.opening import open_backend

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job starts with Ctrl-C ignored
graphs = [open_backend("openvino", Path(path), device="cpu") for path in sys.argv[1:]]
while graphs:
    del graphs[0]
overwritten = [bytes(range(256)) * size for size in range(1, 400)]  # whatever was freed is used again
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_works_after_models_were_dropped_in_any_order(bundle: Path, tmp_path: Path) -> None:
    graphs = [str(describe().graph_path(bundle, role, "openvino")) for role in ("frame", "temporal", "frame")]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *graphs], cwd=tmp_path, capture_output=True, text=True,
                          timeout=120)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


@pytest.mark.parametrize(("function", "expected"), [
    ("expand_roi_align", {"f32": [{}], "bf16": [{}], "int8": [{}]}),
    ("expand_deformable", {name: [{"only_int8": name != "bf16"}] for name in ("f32", "bf16", "int8")}),
    ("keep_grids", {"f32": [], "bf16": [{}], "int8": []}),
])
@pytest.mark.parametrize("precision", ["f32", "bf16", "int8"])
def test_what_is_rewritten_for_which_precision(bundle: Path, monkeypatch: pytest.MonkeyPatch, precision: str,
                                               function: str, expected: dict[str, list[Any]]) -> None:
    rewritten: list[Any] = []
    monkeypatch.setattr(openvino_backend, function, lambda _model, **options: rewritten.append(options))
    monkeypatch.setattr(openvino_backend, "_own_precision", lambda *_: "f32")
    with suppress(DeviceError):  # a CPU without bf16 says so afterwards
        open_backend("openvino", describe().graph_path(bundle, "frame", "openvino"), device="cpu", precision=precision)
    assert rewritten == expected[precision]


@pytest.mark.parametrize("precision", ["f32", "int8"])
@pytest.mark.parametrize("has", [True, False])
def test_convolutions_in_float_are_winograds_also_beside_8_bits(bundle: Path, monkeypatch: pytest.MonkeyPatch,
                                                                precision: str, has: bool) -> None:
    calls: list[tuple[str, int]] = []
    monkeypatch.setattr(openvino_backend, "_own_precision", lambda *_: "f32")
    monkeypatch.setattr(openvino_backend, "tuning", lambda _core, arithmetic: TUNED if has else None)
    monkeypatch.setattr(openvino_backend, "expand_convolutions", lambda _model, *args: calls.append(args[:2]))
    open_backend("openvino", describe().graph_path(bundle, "instances", "openvino"), device="cpu", precision=precision)
    assert calls == [("f32", TUNED.columns)] * has


class TestWhole:
    """The graph of the largest map, beside the one of maps of any size."""

    @pytest.fixture(autouse=True)
    def narrow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Networks as narrow as the demo's are worth it."""
        monkeypatch.setattr(winograd, "FEWEST_CHANNELS", {"f32": 1, "bf16": 1})

    @pytest.mark.parametrize(("precision", "error"), [("f32", 1e-5), ("bf16", 0.05)])
    def test_it_computes_maps_of_the_largest_size_and_no_others(self, monkeypatch: pytest.MonkeyPatch, precision: str,
                                                                error: float) -> None:
        sizes: list[bool] = []
        replaced: list[bool] = []
        compile_ = openvino_backend._compile

        def note(ov: Any, core: Any, model: Any, **options: Any) -> Any:
            sizes.append(model.inputs[0].get_partial_shape().is_static)
            replaced.append(not convolutions_to_expand(model, precision))
            return compile_(ov, core, model, **options)

        monkeypatch.setattr(openvino_backend, "_compile", note)
        columns: list[int] = []
        expand = openvino_backend.expand_convolutions
        monkeypatch.setattr(openvino_backend, "expand_convolutions",
                            lambda model, *args: (columns.append(args[1]), expand(model, *args)))
        try:
            graph = open_backend("openvino", graph_path("prototypes"), device="cpu", precision=precision)
        except DeviceError:
            pytest.skip("this CPU does not compute in bf16")
        tuned = tuning(openvino_backend.shared_core(), precision)
        if tuned is None:
            pytest.skip("this CPU's own convolutions are faster")
        assert graph.whole_from == tuned.whole_from < 1 and sizes == [False]
        height, width = demo_description().model.level_sizes[0]
        p3 = np.random.default_rng(0).random((1, graph.inputs["p3"].shape[1] or 0, height, width), np.float32)
        [expected] = open_backend("onnxruntime", graph_path("prototypes", "onnxruntime"), device="cpu").run(
            {"p3": p3}).values()
        for _ in range(2):
            [whole] = graph.run({"p3": p3}).values()
            [part] = graph.run({"p3": np.ascontiguousarray(p3[:, :, :, :-4])}).values()
            span = np.ptp(expected)
            assert whole.shape == expected.shape and np.abs(whole - expected).max() < error * span
            assert part.shape[1] == whole.shape[1] - 8
            assert np.abs(part[:, :-8] - expected[:, :-16]).max() < error * span
        assert sizes == [False, True] and replaced == [True, True]  # on first use, once
        assert columns == [tuned.columns] * 2

    @pytest.mark.parametrize("role", ["frame", "instances", "temporal"])
    def test_graphs_of_one_size_have_none(self, role: str) -> None:
        assert open_backend("openvino", graph_path(role), device="cpu").whole_from == inf

    def test_none_where_convolutions_are_the_plugins(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(openvino_backend, "tuning", lambda *_: None)
        assert open_backend("openvino", graph_path("prototypes"), device="cpu").whole_from == inf

    def test_none_where_no_convolution_would_be_replaced(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(winograd, "FEWEST_CHANNELS", {"f32": 10000, "bf16": 10000})
        assert open_backend("openvino", graph_path("prototypes"), device="cpu").whole_from == inf


def test_only_what_is_computed_gets_new_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    models: list[Any] = []
    monkeypatch.setattr(openvino_backend, "tuning", lambda *_: TUNED)
    monkeypatch.setattr(openvino_backend, "expand_convolutions", lambda model, *_: models.append(model))
    path = read_description(demo_bundle()).graph_path(demo_bundle(), "frame", "openvino")
    open_backend("openvino", path, device="cpu")
    graph = open_backend("openvino", path, device="cpu", outputs=["boxes", "fpn"])
    frame = np.zeros(tuple(size or 1 for size in graph.inputs["frame"].shape), np.uint8)
    assert list(graph.run({"frame": frame}, ["fpn"])) == ["fpn"]  # of what is there already
    counts = [sum(node.get_type_name() == "Convolution" for node in model.get_ordered_ops()) for model in models]
    assert len(counts) == 2 and counts[0] > counts[1] > 0


def test_weights_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    for path in graph_path("temporal").parent.glob("temporal.*"):
        shutil.copy(path, tmp_path)
    (tmp_path / "temporal.bin").unlink()
    for make in (lambda _: None, Path.mkdir, lambda path: (path.rmdir(), path.touch())):
        make(tmp_path / "temporal.bin")
        with pytest.raises(InputError, match=r"temporal\.xml: OpenVINO cannot read it \(.*export the checkpoint again"):
            open_backend("openvino", tmp_path / "temporal.xml", device="cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="weights stay in memory")
@pytest.mark.parametrize("role", ["frame", "prototypes", "temporal"])
def test_weights_are_in_memory_only_while_they_are_read(role: str, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    own, new = tmp_path / "own", tmp_path / "new"
    for folder in (own, new):
        folder.mkdir()
    for path in graph_path(role).parent.glob(f"{role}.*"):
        shutil.copy(path, own)
    monkeypatch.setenv("TMPDIR", str(new))
    monkeypatch.setattr(weight_files, "ROOM", 0)  # on a small disk too
    monkeypatch.setattr(openvino_backend, "tuning", lambda *_: TUNED)
    monkeypatch.setattr(winograd, "FEWEST_CHANNELS", {"f32": 16, "bf16": 16})

    graph = open_backend("openvino", own / f"{role}.xml", device="cpu")
    opened, resident = mapped(new)
    assert opened > resident == 0 and mapped(own)[0] > mapped(own)[1] == 0
    inputs = temporal_inputs() if role == "temporal" else {
        name: np.zeros([size or 8 for size in spec.shape], spec.dtype) for name, spec in graph.inputs.items()}
    if role == "prototypes":  # the largest map, for which there is another graph
        inputs = {"p3": np.zeros([*inputs["p3"].shape[:2], *demo_description().model.level_sizes[0]], np.float32)}
    results = graph.run(inputs)
    after, resident = mapped(new)
    assert resident == 0 and (after > opened) is (role == "prototypes") and mapped(own)[1] == 0
    for name, value in graph.run(inputs).items():
        np.testing.assert_array_equal(value, results[name])


@pytest.mark.parametrize("role", ["frame", "temporal"])
@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_outputs_are_the_bundles(role: str, precision: str) -> None:
    with suppress(DeviceError):  # a CPU without bf16
        backend = open_backend("openvino", graph_path(role), device="cpu", precision=precision)
        assert set(backend.outputs) == set(demo_description().tensor_names(role)[1])


def test_runs_one_after_another_share_a_request(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each holds memory for all of the graph's values."""
    made: list[Any] = []
    create = openvino.CompiledModel.create_infer_request
    monkeypatch.setattr(openvino.CompiledModel, "create_infer_request",
                        lambda compiled: made.append(compiled) or create(compiled))
    graph = open_backend("openvino", describe().graph_path(bundle, "frame", "openvino"), device="cpu")
    for _ in range(5):
        graph.run({"frame": np.zeros((1, 40, 64, 3), np.uint8)})
    with pytest.raises(StmaskError):
        graph.run({"frame": np.zeros((1, 2, 2, 3), np.uint8)})
    graph.run({"frame": np.zeros((1, 40, 64, 3), np.uint8)})
    assert len(made) == 1


def graph_path(role: str, backend: str = "openvino") -> Path:
    return demo_description().graph_path(demo_bundle(), role, backend)


def demo_description() -> BundleDescription:
    return read_description(demo_bundle())


def temporal_inputs(count: int = 12) -> dict[str, Any]:
    backend = open_backend("openvino", graph_path("temporal"), device="cpu")
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 0.6, (count, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(0.05, 0.4, (count, 2))], axis=1)
    maps = {name: rng.standard_normal([size or 0 for size in spec.shape])
            for name, spec in backend.inputs.items() if name != "boxes"}
    return {name: np.ascontiguousarray(value, np.float32) for name, value in (*maps.items(), ("boxes", boxes))}


def test_propagation_in_bf16_is_that_of_exact_boxes() -> None:
    """Boxes of 8 bits, as the plugin's kernel of RoIAlign gets them, cost 1 to 2 % of the values' spread."""
    feeds, path = temporal_inputs(), graph_path("temporal")
    exact = open_backend("onnxruntime", graph_path("temporal", "onnxruntime"), device="cpu").run(feeds)
    try:
        parts = [open_backend("openvino", path, device="cpu", precision="bf16"),  # all outputs at once, and each alone
                 *(open_backend("openvino", path, device="cpu", precision="bf16", outputs=[name]) for name in exact)]
    except DeviceError as error:
        pytest.skip(str(error))
    for backend in parts:
        for name, value in backend.run(feeds).items():
            error = np.sqrt(np.mean((np.asarray(value) - exact[name]) ** 2)) / np.asarray(exact[name]).std()
            assert error < 0.008, (name, error)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_padding_changes_no_other_row(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    sizes: list[int] = []
    infer = openvino.InferRequest.infer
    monkeypatch.setattr(openvino.InferRequest, "infer", lambda request, inputs, **settings: (
        sizes.append(len(inputs["boxes"])), infer(request, inputs, **settings))[1])
    try:
        graph = open_backend("openvino", graph_path("temporal"), device="cpu", precision=precision)
    except DeviceError as error:
        pytest.skip(str(error))
    feeds = temporal_inputs(33)
    whole = graph.run(feeds)
    for count in (0, 1, 17, 25, 32):
        found = graph.run({**feeds, "boxes": feeds["boxes"][:count]})
        for name, values in whole.items():
            assert found[name].shape == (count, *values.shape[1:])
            np.testing.assert_allclose(found[name], values[:count], atol=1e-5 if precision == "f32" else 0.02)
    assert sizes == [36, 0, 1, 18, 26, 32]


def test_padding_changes_no_other_row_of_the_instance_graph() -> None:
    graph = open_backend("openvino", graph_path("instances"), device="cpu")
    rng = np.random.default_rng(0)
    shared = rng.standard_normal([size or 0 for size in graph.inputs["shared"].shape]).astype(np.float32)
    anchors = rng.permutation(len(shared))[:19]
    plain = open_backend("onnxruntime", graph_path("instances", "onnxruntime"), device="cpu")
    expected = plain.run({"shared": shared, "anchor_index": anchors})
    for name, values in graph.run({"shared": shared, "anchor_index": anchors}).items():
        assert values.shape == expected[name].shape
        np.testing.assert_allclose(values, expected[name], atol=1e-4)


real_core = openvino_backend.shared_core  # before a test puts another in its place


class CoreWithGpu:
    """OpenVINO's core on a machine with an Intel GPU, which cannot compile anything."""

    available_devices = ("CPU", "GPU.0", "GPU.1")

    def __init__(self) -> None:
        self.tried: list[str] = []

    def compile_model(self, model: Any, plugin: str, settings: Any) -> Any:
        self.tried.append(plugin)
        if plugin != "CPU":
            raise RuntimeError("no kernel\nfor this")
        return real_core().compile_model(model, plugin, settings)

    def __getattr__(self, name: str) -> Any:
        return getattr(real_core(), name)


@pytest.mark.parametrize(("device", "precision", "tried"), [
    ("auto", "f32", ["GPU.0", "CPU"]), ("auto", "bf16", ["CPU"]), ("cpu", "f32", ["CPU"]), ("gpu", "f32", ["GPU.0"]),
])
def test_which_devices_are_tried(bundle: Path, monkeypatch: pytest.MonkeyPatch, device: str, precision: str,
                                 tried: list[str]) -> None:
    core = CoreWithGpu()
    monkeypatch.setattr(openvino_backend, "shared_core", lambda: core)
    path = describe().graph_path(bundle, "frame", "openvino")
    if device == "gpu":
        with pytest.raises(DeviceError, match=r"cannot compile it for GPU.0 in f32 \(no kernel for this\)"):
            open_backend("openvino", path, device=device, precision=precision)
    else:
        with suppress(DeviceError):  # a CPU without bf16 says so afterwards
            told = open_backend("openvino", path, device=device, precision=precision).device
            assert "CPU" in told and ("no kernel" in told) == (len(tried) > 1)
    assert core.tried == tried
