"""Fixtures of the runtime's tests."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cuda_runtime import FakeCudaRuntime
from recorded_graphs import CapturableSession
from tiny_bundles import describe, frame_graph, save_graph, temporal_graph, write_bundle

from stmask_deploy.runtime import onnxruntime_backend, onnxruntime_session
from stmask_deploy.runtime.cuda_runtime import CudaRuntime
from stmask_deploy.runtime.onnxruntime_providers import CPU
from stmask_deploy.runtime.onnxruntime_session import SessionMaker


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """Writes a bundle into a folder of the given name, see `write_bundle`."""
    def make(name: str = "bundle", **changes: Any) -> Path:
        return write_bundle(tmp_path / name, **changes)

    return make


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with IR, for tests that only read it."""
    return write_bundle(tmp_path_factory.mktemp("shared") / "bundle", openvino=True)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> FakeCudaRuntime:
    """`cuda-graph` computes on the CPU, with the CPU's memory as the device's, and does so when somebody waits."""
    library = FakeCudaRuntime()
    runtime = CudaRuntime(library)
    open_session = SessionMaker.open

    def open_capturable(self: SessionMaker, *args: Any) -> Any:
        session = open_session(self, *args)
        return CapturableSession(session, library) if len(args) == 3 else session

    monkeypatch.setattr(SessionMaker, "is_on_host", False)
    monkeypatch.setattr(SessionMaker, "open", open_capturable)
    monkeypatch.setattr(onnxruntime_backend, "choose_provider", lambda ort, device: (CPU, ""))
    monkeypatch.setattr(onnxruntime_session, "cuda_runtime", lambda version: runtime)
    return library


@pytest.fixture
def graphs(tmp_path: Path) -> Path:
    """A folder with a tiny frame graph and a tiny temporal graph."""
    save_graph(frame_graph(3), tmp_path / "frame.onnx", describe())
    save_graph(temporal_graph(), tmp_path / "temporal.onnx", describe())
    return tmp_path
