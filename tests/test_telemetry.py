"""Nothing reports how the package is used: libraries that would are told not to before they are imported."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stmask_deploy.bundle import read_description
from stmask_deploy.pretrained import demo_bundle

# Where there is one of these, ONNX Runtime keeps quiet anyway.
BUILD_MACHINES = ("CI", "GITHUB_ACTIONS", "GITLAB_CI", "CIRCLECI", "TF_BUILD", "TRAVIS", "APPVEYOR", "JENKINS_URL")
RUN = """
import sys
from pathlib import Path
from stmask_deploy.runtime.opening import open_backend
open_backend("onnxruntime", Path(sys.argv[1]), device="cpu")
"""
OPENVINO = RUN.replace("onnxruntime", "openvino")
EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "graphs_alone.py"
TELL = "import os, stmask_deploy; print(os.environ['ORT_DISABLE_TELEMETRY'])"


def python(program: str, folder: Path, **environment: str) -> str:
    """What a program prints that may write only to `folder`."""
    usual = {name: value for name, value in os.environ.items()
             if name not in (*BUILD_MACHINES, "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME")}
    backend = "openvino" if program == OPENVINO else "onnxruntime"
    graph = read_description(demo_bundle()).graph_path(demo_bundle(), "temporal", backend)
    done = subprocess.run([sys.executable, "-c", program, str(graph)], capture_output=True, text=True, timeout=120,
                          env={**usual, "HOME": str(folder), "TMPDIR": str(folder), **environment}, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("program", [RUN, "import stmask_deploy.export.onnx_model, onnxruntime",
                                     f"import runpy; runpy.run_path({str(EXAMPLE)!r})"])
def test_onnx_runtime_gets_no_identity_and_no_storage(tmp_path: Path, program: str) -> None:
    if "onnx_model" in program:
        pytest.importorskip("onnxsim")
    python(program, tmp_path)
    assert not list(tmp_path.iterdir())  # neither a device's number nor a database of events to send


@pytest.mark.parametrize("program", [OPENVINO, """
from stmask_deploy.export.openvino_ir import require_openvino
require_openvino()
"""])
def test_openvino_gets_no_identity_and_no_count(tmp_path: Path, program: str) -> None:
    pytest.importorskip("openvino")
    python(program, tmp_path)
    assert not list(tmp_path.iterdir())


def test_int8_sends_nothing(tmp_path: Path) -> None:
    pytest.importorskip("nncf")
    python("from stmask_deploy.export.int8_openvino import require_nncf; require_nncf()", tmp_path)
    assert not list(tmp_path.iterdir())


def test_whoever_allows_it_is_heard(tmp_path: Path) -> None:
    assert [python(TELL, tmp_path, **given).strip() for given in ({}, {"ORT_DISABLE_TELEMETRY": "0"})] == ["1", "0"]
