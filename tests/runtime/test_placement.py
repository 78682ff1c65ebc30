"""Which execution provider of ONNX Runtime computes which node, as its profile tells."""
from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnxruntime
import pytest

from stmask_deploy.bundle import read_description
from stmask_deploy.pretrained import demo_bundle
from stmask_deploy.runtime.loading import run_outputs
from stmask_deploy.runtime.onnxruntime_providers import (
    CPU,
    CUDA,
    TENSORRT,
    choose_provider,
    load_cuda,
    provider_options,
)
from stmask_deploy.runtime.onnxruntime_session import SessionMaker, specs, zeros

DESCRIPTION = read_description(demo_bundle())


def nodes_by_provider(profile: Path) -> dict[str, list[str]]:
    """Names of the nodes that ran, by provider, from a profile that ONNX Runtime wrote."""
    found: dict[str, list[str]] = defaultdict(list)
    for event in json.loads(profile.read_text()):
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            found[event["args"]["provider"]].append(event["name"].removesuffix("_kernel_time"))
    return dict(found)


@pytest.fixture
def profiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, list[str]]]:
    """The nodes of a session as a run opens it, by provider."""
    options_of = SessionMaker._options

    def with_profile(maker: SessionMaker) -> Any:
        options = options_of(maker)
        options.enable_profiling = True
        options.profile_file_prefix = str(tmp_path / "profile")
        return options

    def profile(graph: Path, provider: str, precision: str = "f32", rows: int = 4,
                outputs: Sequence[str] | None = None) -> dict[str, list[str]]:
        maker = SessionMaker(onnxruntime, graph, provider, precision, None, None)
        session = maker.open(outputs, dict.fromkeys(("N", "H", "W"), rows))
        session.run(None, zeros(specs(session.get_inputs())))
        return nodes_by_provider(Path(session.end_profiling()))

    monkeypatch.setattr(SessionMaker, "_options", with_profile)
    return profile


def outputs_of_a_run(role: str) -> tuple[str, ...] | None:
    """Where there is a GPU, all prototypes come from the frame graph."""
    return run_outputs(DESCRIPTION, ("frame", "instances", "temporal")) if role == "frame" else None


@pytest.mark.parametrize("role", DESCRIPTION.roles)
def test_every_node_is_told(role: str, profiled: Callable[..., dict[str, list[str]]]) -> None:
    nodes = profiled(demo_bundle() / f"{role}.onnx", CPU)
    assert list(nodes) == [CPU]
    assert len(nodes[CPU]) > 8 and any("conv" in name.lower() or "relu" in name for name in nodes[CPU])
    of_a_run = profiled(demo_bundle() / f"{role}.onnx", CPU, rows=16, outputs=outputs_of_a_run(role))
    assert (len(of_a_run[CPU]) < len(nodes[CPU])) == (role == "frame")


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["f32", "f16"])
@pytest.mark.parametrize("rows", [1, 16, 64])
@pytest.mark.parametrize("role", DESCRIPTION.roles)
def test_no_node_is_computed_on_the_host(role: str, rows: int, precision: str, tmp_path: Path,
                                         profiled: Callable[..., dict[str, list[str]]]) -> None:
    graph = demo_bundle() / f"{role}.onnx"
    if precision == "f16":
        half = pytest.importorskip("stmask_deploy.export.half", reason="needs the exporter's packages")
        data = half.to_half(pytest.importorskip("onnx").load(graph))[0].SerializeToString()
        graph = tmp_path / "half.onnx"
        graph.write_bytes(data)
    nodes = profiled(graph, CUDA, precision, rows, outputs_of_a_run(role))
    assert CPU not in nodes, nodes[CPU]
    assert not [name for name in nodes[CUDA] if name.startswith("Memcpy")]


def test_providers_and_their_options(tmp_path: Path) -> None:
    assert provider_options(CPU, "f32", tmp_path) == [(CPU, {})]
    (cuda, options), rest = provider_options(CUDA, "f32", None)
    assert (cuda, options["use_tf32"], rest) == (CUDA, "0", (CPU, {}))
    assert not {"user_compute_stream", "prefer_nhwc", "fuse_conv_bias"} & options.keys()
    (_, recorded), _ = provider_options(CUDA, "f32", None, stream=1234)
    assert recorded == {**options, "user_compute_stream": "1234"}
    names = [name for name, _ in provider_options(TENSORRT, "f32", None)]
    assert names == [TENSORRT, CUDA, CPU]  # CUDA takes the nodes that TensorRT does not


def test_tensor_cores_get_f16_as_they_read_it() -> None:
    (_, options), _ = provider_options(CUDA, "f16", None)
    assert (options["use_tf32"], options["prefer_nhwc"], options["fuse_conv_bias"]) == ("1", "1", "1")


def test_tensorrt_keeps_its_engines_where_it_is_told(tmp_path: Path) -> None:
    without = dict(provider_options(TENSORRT, "f32", None))[TENSORRT]
    assert without == {"trt_fp16_enable": "0"}
    options = dict(provider_options(TENSORRT, "f16", tmp_path / "a" / "b"))[TENSORRT]
    assert options["trt_fp16_enable"] == "1" and options["trt_engine_cache_path"] == str(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").is_dir()


class Package:
    """The package onnxruntime, as far as libraries are loaded by it."""

    def __init__(self, says: str) -> None:
        self.says, self.asked, self.severity = says, 0, 2

    def preload_dlls(self) -> None:
        self.asked += 1
        print(self.says)

    def set_default_logger_severity(self, severity: int) -> None:
        self.severity = severity


def test_libraries_of_cuda_are_loaded_once_and_what_is_missing_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    whole, part = Package(""), Package("Failed to load libcudnn.so.9:\n cannot open shared object file")
    assert [load_cuda(whole), load_cuda(whole)] == ["", ""] and whole.asked == 1
    assert load_cuda(part) == "Failed to load libcudnn.so.9: cannot open shared object file"
    assert len(load_cuda(Package("no such file " * 99))) == 300
    assert capsys.readouterr().out == ""  # where results may be going
    maker = SessionMaker(part, Path("frame.onnx"), CUDA, "f32", None, None)
    assert maker._missing.endswith("shared object file; stmask-deploy[cuda] brings CUDA's libraries")


@pytest.mark.parametrize(("device", "provider", "loads"), [
    ("cpu", CPU, 0), ("cuda", CUDA, 1), ("auto", CUDA, 1), ("cuda-graph", CUDA, 1)])
def test_only_a_gpu_needs_them(device: str, provider: str, loads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    package = Package("")
    monkeypatch.setattr(package, "get_available_providers", lambda: [CUDA, CPU], raising=False)
    assert choose_provider(package, device)[0] == provider and package.asked == loads
    assert package.severity == (4 if loads else 2)  # nothing in colours on stderr before the one line
