"""`stmask-run` in an interpreter where nothing of the export side can be imported."""
from __future__ import annotations

RUN_WITHOUT_TORCH = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "onnx", "onnxscript", "onnxsim") or name.startswith("stmask_deploy.export"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocker())
from stmask_deploy.runtime.cli import main
main(prog_name="stmask-run")
"""
