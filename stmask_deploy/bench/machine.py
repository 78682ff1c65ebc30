"""The machine and library versions behind a figure."""
from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from ..environment import available_cpus, installed_versions

PACKAGES = ("stmask-deploy", "torch", "onnxruntime", "onnxruntime-gpu", "openvino", "numpy", "opencv-python-headless",
            "av")
GIT_S = 10  # seconds that git may take
CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8")  # affecting speed


def describe_machine(cpuinfo: str | None = None) -> dict[str, Any]:
    """System, CPU model, its flags among `CPU_FLAGS`, cores usable by this process, and the load before measuring.

    Args:
        cpuinfo: text of /proc/cpuinfo; None reads it. Without that file the model is what Python's `platform` reports.
    """
    path = Path("/proc/cpuinfo")
    if cpuinfo is None:
        cpuinfo = path.read_text(encoding="utf-8") if path.exists() else ""
    fields = {key.strip(): value.strip() for key, _, value in
              (line.partition(":") for line in reversed(cpuinfo.splitlines()))}  # of the first core
    flags = set(fields.get("flags", "").split())
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": fields.get("model name") or platform.processor() or "unknown",
        "cpu_family_model": "/".join(fields.get(name, "?") for name in ("cpu family", "model")),
        "cpu_flags": [name for name in CPU_FLAGS if name in flags],
        "cores": available_cpus(),
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def library_versions() -> dict[str, str]:
    """Version of Python and of each of `PACKAGES` that is installed, and the commit if this package is a checkout."""
    found = commit(Path(__file__).resolve().parents[2])
    return {"python": platform.python_version(), **installed_versions(PACKAGES), **({"commit": found} if found else {})}


def commit(repository: Path) -> str | None:
    """Abbreviated commit of a git checkout, with `-dirty` if files differ from it; None if there is none, or no git."""
    if not (repository / ".git").exists():  # or git would find one of the folders above
        return None
    try:
        done = subprocess.run(["git", "-C", str(repository), "describe", "--always", "--dirty",  # noqa: S603, S607
                               "--exclude=*"], capture_output=True, text=True, timeout=GIT_S, check=True,
                              env={name: value for name, value in os.environ.items() if not name.startswith("GIT_")})
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
