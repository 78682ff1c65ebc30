from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from stmask_deploy.bench.machine import commit, describe_machine, library_versions

CPUINFO = """\
processor\t: 0
cpu family\t: 6
model\t\t: 143
model name\t: Intel(R) Xeon(R)
flags\t\t: fpu avx2 avx512f amx_bf16 avx512_bf16 amx_tile

processor\t: 1
model name\t: another
flags\t\t: fpu
"""


def test_the_first_core_speaks_for_all() -> None:
    machine = describe_machine(CPUINFO)
    assert (machine["cpu"], machine["cpu_family_model"]) == ("Intel(R) Xeon(R)", "6/143")
    assert machine["cpu_flags"] == ["avx2", "avx512f", "avx512_bf16", "amx_tile", "amx_bf16"]


def test_a_system_without_cpuinfo() -> None:
    machine = describe_machine("")
    assert machine["cpu"]
    assert machine["cpu_flags"] == []


def test_this_machine() -> None:
    path = Path("/proc/cpuinfo")
    assert describe_machine()["cpu_flags"] == describe_machine(path.read_text() if path.exists() else "")["cpu_flags"]
    assert 1 <= describe_machine()["cores"] <= (os.cpu_count() or 1)


def test_only_installed_libraries_have_a_version() -> None:
    versions = library_versions()
    assert {"python", "numpy", "onnxruntime"} <= versions.keys()
    assert "onnxruntime-gpu" not in versions or versions["onnxruntime-gpu"]
    assert ("commit" in versions) == (commit(Path(__file__).parent.parent.parent) is not None)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_checkout_is_named_by_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*args: str) -> str:
        return subprocess.run(["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *args],
                              check=True, capture_output=True, text=True).stdout.strip()

    assert commit(tmp_path) is None
    git("init")
    assert commit(tmp_path) is None  # nothing committed yet
    (tmp_path / "file").write_text("1")
    git("add", "file")
    git("commit", "-m", "one")
    git("tag", "-a", "-m", "a release", "v1")
    found = commit(tmp_path)
    assert found and git("rev-parse", "HEAD").startswith(found)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))  # as in a hook
    assert commit(tmp_path) == found
    monkeypatch.delenv("GIT_DIR")
    (tmp_path / "file").write_text("2")
    assert commit(tmp_path) == f"{found}-dirty"
    (tmp_path / "folder").mkdir()
    assert commit(tmp_path / "folder") is None  # a package in somebody else's repository
    monkeypatch.setenv("PATH", "")
    assert commit(tmp_path) is None
