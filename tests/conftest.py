"""Shared fixtures, and an early, readable stop where the package is not installed."""
from __future__ import annotations

import errno
import importlib.util
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

# Before NumPy and PyTorch are imported: several processes share the cores, and threads of BLAS and OpenMP that wait for
# each other keep them busy, on a loaded machine for minutes.
for threads in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(threads, "1")

# The package imports openvino without it; tests import openvino themselves.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

with suppress(ImportError):  # the tests for a GPU do without
    from hypothesis import settings

    # The gate tries the same every time, and a machine that stalls is no failure.
    settings.register_profile("gate", deadline=None, derandomize=True)
    settings.load_profile("gate")

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.append(str(REPOSITORY / "benchmarks"))  # scripts, which are not installed


def pytest_configure(config: pytest.Config) -> None:
    if importlib.util.find_spec("stmask_deploy") is None or importlib.util.find_spec("stmask_deploy.runtime") is None:
        raise pytest.UsageError("stmask_deploy.runtime cannot be imported: run `pip install -e .` first")
    # In the background of a shell Ctrl-C is ignored, under nohup SIGHUP, and commands under test would inherit that.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, which is not needed to run the tests
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Whole folders to one worker each: what a folder's tests share is made once."""
    from xdist.scheduler import LoadScopeScheduling

    class FolderScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return nodeid.split("::")[0].rpartition("/")[0]

    return FolderScheduling(config, log)


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    skips = {
        "reference": (reference_path().is_dir(), f"no recorded reference values at {reference_path()}"),
        "gpu": (_has_gpu(), "onnxruntime finds no NVIDIA GPU here"),
    }
    for item in items:
        for marker, (available, reason) in skips.items():
            if not available and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """The same weights and inputs for a test each time, alone or after others."""
    if torch := sys.modules.get("torch"):  # before the fixtures, which make models too
        torch.manual_seed(0)


@pytest.fixture(autouse=True)
def interrupts_as_before() -> Iterator[None]:
    """A command that was interrupted leaves its process deaf to Ctrl-C."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def shut_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that may not be entered: what is in it cannot even be looked at. For root, whom nothing keeps out."""
    folder = tmp_path / "shut"
    folder.mkdir()

    def guarded(function: Callable[..., Any]) -> Callable[..., Any]:
        def guard(path: Any, *args: Any, **options: Any) -> Any:
            if not isinstance(path, int) and folder in Path(os.fsdecode(path)).parents:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return function(path, *args, **options)
        return guard

    access = os.access
    monkeypatch.setattr(os, "stat", guarded(os.stat))
    monkeypatch.setattr(os, "lstat", guarded(os.lstat))
    monkeypatch.setattr(os, "access", lambda path, *args, **options: Path(path) != folder and access(
        path, *args, **options))
    return folder


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """The folder of recorded reference values; skips the test where it is absent."""
    path = reference_path()
    if not path.is_dir():
        pytest.skip(f"no recorded reference values at {path}; set STMASK_REFERENCE")
    return path


def reference_path() -> Path:
    """`STMASK_REFERENCE`, or `../shared/reference` beside the checkout."""
    return Path(os.environ.get("STMASK_REFERENCE", REPOSITORY.parent / "shared" / "reference"))


def _has_gpu() -> bool:
    try:
        import onnxruntime
    except ImportError:
        return False
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return False
    from stmask_deploy.runtime.cuda_runtime import CudaError, cuda_runtime
    onnxruntime.preload_dlls()  # CUDA's libraries
    try:
        runtime = cuda_runtime(onnxruntime.cuda_version)
        return runtime is not None and runtime.check_device() is None
    except CudaError:
        return False
