"""Only a bundle whose parts belong together is opened."""
from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from tiny_bundles import CONFIG, describe, frame_graph, save_graph, save_ir, temporal_graph

from stmask_deploy.bundle import ROLES
from stmask_deploy.errors import DeviceError, InputError
from stmask_deploy.runtime import loading
from stmask_deploy.runtime.backends import BACKENDS, Backend
from stmask_deploy.runtime.loading import open_bundle
from stmask_deploy.runtime.opening import open_backend

MakeBundle = Callable[..., Path]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_bundle_opens(bundle: Path, backend: str) -> None:
    opened = open_bundle(bundle, backend)
    assert opened.description == describe()
    assert opened.temporal is not None
    assert opened.frame.metadata == opened.temporal.metadata == describe()


def test_graphs_that_are_not_needed_are_not_loaded(make_bundle: MakeBundle) -> None:
    folder = make_bundle()
    (folder / "temporal.onnx").unlink()
    assert open_bundle(folder, with_temporal=False).temporal is None
    with pytest.raises(InputError, match="no .*temporal.onnx"):
        open_bundle(folder)
    assert open_bundle(make_bundle("frames", has_temporal=False)).temporal is None


@pytest.mark.parametrize(("threads", "cores", "expected"), [
    (None, 64, False), (1, 1, False), (1, 2, True), (2, 2, False), (2, 3, False), (2, 4, True), (8, 4, False)])
def test_graphs_overlap_where_they_have_cores_of_their_own(bundle: Path, monkeypatch: pytest.MonkeyPatch,
                                                           threads: int | None, cores: int, expected: bool) -> None:
    monkeypatch.setattr(loading, "available_cpus", lambda: cores)
    assert open_bundle(bundle, threads=threads).may_overlap is expected


def test_paths_may_be_strings(bundle: Path) -> None:
    assert open_bundle(str(bundle)).description == describe()


@pytest.mark.parametrize("role", ["frame", "temporal"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_graphs_of_two_exports_are_refused(make_bundle: MakeBundle, role: str, backend: str) -> None:
    folder, other = make_bundle("one", openvino=True), make_bundle("two", export_id="89ef", openvino=True)
    path = describe().graph_path(folder, role, backend)
    for part in [path, path.with_suffix(".bin")][:1 if backend == "onnxruntime" else 2]:
        (other / part.relative_to(folder)).replace(part)
    with pytest.raises(InputError, match="89ef but the bundle is of export 0123abcd: files of two exports are mixed"):
        open_bundle(folder, backend)


def test_a_bundle_without_ir_says_how_to_get_it(make_bundle: MakeBundle) -> None:
    with pytest.raises(InputError, match="stmask-export CHECKPOINT --openvino"):
        open_bundle(make_bundle(), "openvino")


def test_no_bundle(tmp_path: Path, make_bundle: MakeBundle) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_bundle(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is not a bundle"):
        open_bundle(tmp_path / "empty")
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "stmask.json").write_text('{"schema": "something/9"}')
    with pytest.raises(InputError, match="expected schema"):
        open_bundle(tmp_path / "bundle")


@pytest.mark.parametrize(("backend", "file"), [
    ("onnxruntime", "frame.onnx"), ("openvino", "openvino/frame.xml"), ("openvino", "openvino/frame.bin"),
])
def test_files_of_impossible_size_are_not_even_read(make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch,
                                                    backend: str, file: str) -> None:
    folder = make_bundle(openvino=True)
    (folder / file).write_bytes(b"")
    with pytest.raises(InputError, match="has 0 bytes and cannot be a graph"):
        open_bundle(folder, backend)
    (folder / file).write_bytes(b"x" * 100)
    monkeypatch.setattr(loading, "MAX_GRAPH_BYTES", 99)
    with pytest.raises(InputError, match="cannot be a graph"):
        open_bundle(folder, backend)


def test_a_missing_weights_file_is_told(make_bundle: MakeBundle) -> None:
    folder = make_bundle(openvino=True)
    (folder / "openvino" / "temporal.bin").unlink()
    with pytest.raises(InputError, match=r"temporal\.bin"):
        open_bundle(folder, "openvino")


def test_weights_of_another_export_are_refused(make_bundle: MakeBundle) -> None:
    folder, other = make_bundle("one", openvino=True), make_bundle("two", export_id="89ef", openvino=True)
    path = folder / "openvino" / "frame.bin"
    own = path.read_bytes()
    path.write_bytes((other / "openvino" / "frame.bin").read_bytes())
    with pytest.raises(InputError, match=r"frame\.bin does not belong to export .*; export the checkpoint again"):
        open_bundle(folder, "openvino")
    for cut in (own[:-1], own[-3:], own + b"x"):
        path.write_bytes(cut)
        with pytest.raises(InputError, match=r"frame\."):
            open_bundle(folder, "openvino")


@pytest.mark.parametrize("backend", BACKENDS)
def test_all_differences_to_the_description_are_told_together(make_bundle: MakeBundle, backend: str) -> None:
    folder = make_bundle(openvino=True, model=dataclasses.replace(CONFIG, class_names=("cat",), embedding_dim=9))
    with pytest.raises(InputError) as caught:
        open_bundle(folder, backend)
    told = str(caught.value)
    assert "class_scores: expected float32 (6, 1), found float32 (6, 2)" in told
    assert "embeddings: expected float32 (6, 9), found float32 (6, 8)" in told
    assert "boxes" not in told


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_graph_in_the_other_ones_place_is_refused(make_bundle: MakeBundle, backend: str) -> None:
    folder = make_bundle()
    save_graph(temporal_graph(), folder / "frame.onnx", describe())
    save_graph(frame_graph(1), folder / "temporal.onnx", describe())
    for role in ROLES:
        save_ir(folder / f"{role}.onnx", folder / "openvino" / f"{role}.xml", describe())
    with pytest.raises(InputError, match="input frame is missing"):
        open_bundle(folder, backend)


def test_unknown_inputs_and_wrong_types_are_told(make_bundle: MakeBundle) -> None:
    folder = make_bundle()
    graph = frame_graph(3)
    graph.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    graph.graph.input.append(onnx.helper.make_tensor_value_info("mask", onnx.TensorProto.FLOAT, [1]))
    save_graph(graph, folder / "frame.onnx", describe())
    with pytest.raises(InputError, match=r"unknown input mask; input frame: expected uint8 \(1, 40, 64, 3\), found fl"):
        open_bundle(folder)


def test_another_number_of_axes_is_told(make_bundle: MakeBundle) -> None:
    folder = make_bundle()
    graph = frame_graph(3)
    graph.graph.input[0].type.tensor_type.shape.dim.add(dim_value=2)
    save_graph(graph, folder / "frame.onnx", describe())
    with pytest.raises(InputError, match=r"expected uint8 \(1, 40, 64, 3\), found uint8 \(1, 40, 64, 3, 2\)"):
        open_bundle(folder)


def test_wrong_requests_are_told_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="backend 'torch' is not known"):
        open_bundle(tmp_path / "nothing", "torch")


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_run_does_not_read_is_not_there(make_bundle: MakeBundle, backend: str) -> None:
    folder = make_bundle(openvino=True)
    whole, part = open_bundle(folder, backend), open_bundle(folder, backend, is_whole=False)
    assert whole.roles == part.roles == ROLES
    assert set(whole.frame.outputs) - set(part.frame.outputs) == {"mask_coeffs", "embeddings", "prototypes"}
    frames = open_bundle(folder, backend, is_whole=False, with_temporal=False)
    assert set(part.frame.outputs) - set(frames.frame.outputs) == {"fpn", "temporal"}
    assert {"shared", "p3"} < set(frames.frame.outputs) and frames.temporal is None


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("elsewhere", [("prototypes", "frame", "instances", "temporal"), ("frame",), ("prototypes",)])
def test_where_sizes_cost_preparation_the_frame_graph_gives_all_prototypes(
        make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch, backend: str, elsewhere: tuple[str, ...]) -> None:
    folder = make_bundle(openvino=True)
    opened: list[str] = []

    def open_elsewhere(name: str, graph: Path, **options: Any) -> Backend:
        opened.append(graph.stem)
        backend = open_backend(name, graph, **options)
        backend.is_on_host = graph.stem not in elsewhere
        return backend

    monkeypatch.setattr(loading, "open_backend", open_elsewhere)
    bundle = open_bundle(folder, backend, is_whole=False)
    assert bundle.prototypes is None and "prototypes" not in bundle.roles
    assert bundle.may_overlap is ("frame" in elsewhere)  # a GPU's graphs do not take cores from each other
    assert "prototypes" in bundle.frame.outputs and "p3" not in bundle.frame.outputs
    tried = ["prototypes", "frame"] if "prototypes" not in elsewhere else ["prototypes"]
    assert opened == [*tried, "frame", "instances", "temporal"]


def test_a_device_that_is_no_host_opens_no_windows(make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def refuse(name: str, graph: Path, **options: Any) -> Backend:
        opened.append(graph.stem)
        raise DeviceError("no device")

    monkeypatch.setattr(loading, "open_backend", refuse)
    folder = make_bundle()
    (folder / "prototypes.onnx").unlink()
    with pytest.raises(DeviceError):
        open_bundle(folder, device="cuda")
    assert opened == ["frame"]


@pytest.mark.parametrize("change", [
    {"candidate_threshold": 0.0}, {"max_candidates": 9}, {"model": {"input_size": [40, 72]}},
    {"model": {"pixel_mean": [1.0, 2.0, 3.0]}}], ids=str)
def test_a_description_that_was_changed_is_refused(make_bundle: MakeBundle, change: dict[str, Any]) -> None:
    folder = make_bundle()
    path = folder / "stmask.json"
    values = json.loads(path.read_text())
    model = {**values["model"], **change.get("model", {})}
    path.write_text(json.dumps({**values, **change, "model": model}))
    with pytest.raises(InputError, match="stmask.json was modified: .* does not match .*.onnx; export"):
        open_bundle(folder)


def test_names_of_classes_and_the_tracker_are_the_descriptions(make_bundle: MakeBundle) -> None:
    folder = make_bundle()
    path = folder / "stmask.json"
    values = json.loads(path.read_text())
    names = [f"other {name}" for name in values["model"]["class_names"]]
    values["model"] |= {"class_names": names, "tracking": {"tracker": "paper"}}
    path.write_text(json.dumps(values))
    assert open_bundle(folder).description.model.class_names == tuple(names)


@pytest.mark.parametrize("backend", BACKENDS)
def test_letters_in_a_graph_that_are_none(make_bundle: MakeBundle, backend: str) -> None:
    folder = make_bundle(openvino=True)
    path = folder / ("frame.onnx" if backend == "onnxruntime" else "openvino/frame.xml")
    name = describe().checkpoint_name.encode()
    assert name in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(name, b"\xff" + name[1:]))
    with pytest.raises(InputError, match="frame.* (is damaged|cannot read|cannot be read|cannot load)"):
        open_bundle(folder, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_folder_whose_name_is_not_text(make_bundle: MakeBundle, tmp_path: Path, backend: str) -> None:
    folder = make_bundle(openvino=True).rename(tmp_path / os.fsdecode(b"not\xfftext"))
    assert set(open_bundle(folder, backend).roles) == set(ROLES)
