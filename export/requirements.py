"""The packages of the extra `export`; the commands can be installed without them."""
from __future__ import annotations

from importlib.util import find_spec

from stmask_deploy.errors import InputError

PACKAGES = ("torch", "onnx", "onnxscript", "onnxsim")


def require_export_packages() -> None:
    """Raise InputError, with the remedy, if a package of the extra is not installed."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(f"exporting and verifying need {', '.join(missing)}: pip install 'stmask-deploy[export,cpu]'")
