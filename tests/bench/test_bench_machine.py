from __future__ import annotations

import os
from pathlib import Path

from stmask_deploy.bench.machine import describe_machine, library_versions

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
