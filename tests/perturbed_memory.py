"""What a program writes must not depend on what lay in the memory that it is given."""
from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FILLS = ("1", "85", "170")  # values that glibc fills freed and new memory with
needs_glibc = pytest.mark.skipif(sys.platform != "linux", reason="the variable is of glibc")


def written_files(program: str, folder: Path, suffix: str) -> list[bytes]:
    """The file that `program` writes to the path in `sys.argv[1]`, once for each of `FILLS`."""
    paths = [folder / f"{fill}{suffix}" for fill in FILLS]
    for fill, path in zip(FILLS, paths, strict=True):
        subprocess.run([sys.executable, "-c", program, path], check=True, timeout=60,
                       env={**os.environ, "MALLOC_PERTURB_": fill})
    return [path.read_bytes() for path in paths]
