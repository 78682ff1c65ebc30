"""The benchmarks are scripts: their folder is not installed, and the tiny bundles are a neighbour's."""
from __future__ import annotations

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(REPOSITORY / "benchmarks"), str(REPOSITORY / "tests" / "runtime")]
