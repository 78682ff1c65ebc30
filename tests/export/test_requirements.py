from __future__ import annotations

import subprocess
import sys

import pytest

from stmask_deploy.pretrained import demo_bundle, demo_checkpoint

BLOCKED = """
import sys
from importlib.machinery import PathFinder

class Silent(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in {missing} else super().find_spec(name, path, target)

sys.meta_path[:] = [Silent if finder is PathFinder else finder for finder in sys.meta_path]
from stmask_deploy.export.{module} import main
main(sys.argv[1:])
"""


@pytest.mark.parametrize(("module", "arguments"), [("cli", ["a.pth"]), ("verify_cli", ["bundle", "a.pth"])])
def test_a_runtime_install_is_told_what_exporting_needs(module: str, arguments: list[str]) -> None:
    script = BLOCKED.format(module=module, missing=("torch", "onnxsim"))
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=180)
    assert done.returncode == 2
    assert done.stderr.strip() == ("error: exporting and verifying need torch, onnxsim: "
                                   "pip install 'stmask-deploy[export,cpu]'")


@pytest.mark.parametrize(("module", "arguments"), [
    ("cli", [str(demo_checkpoint())]), ("verify_cli", [str(demo_bundle()), str(demo_checkpoint())])])
def test_a_backend_is_needed_beside(module: str, arguments: list[str]) -> None:
    script = BLOCKED.format(module=module, missing=("onnxruntime",))
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=180)
    assert done.returncode == 2
    assert done.stderr.strip() == ("error: exporting and verifying need ONNX Runtime, which is not installed: "
                                   "pip install 'stmask-deploy[export,cpu]'")
