"""`openvino` without the module that reports its import."""
from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import pytest

from stmask_deploy.openvino_library import import_openvino


class Finder:
    """Finds an `openvino` that notes whether the reporter could be imported."""

    def __init__(self, fails: bool) -> None:
        self._fails = fails

    def find_spec(self, name: str, _path: object, _target: object = None) -> object:
        from importlib.machinery import ModuleSpec

        return ModuleSpec(name, self) if name == "openvino" else None  # type: ignore[arg-type]

    def create_module(self, _spec: object) -> None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        if self._fails:
            raise ImportError("no such library")
        try:
            import openvino_telemetry  # noqa: F401
        except ImportError:
            module.is_quiet = True  # type: ignore[attr-defined]


@pytest.fixture(params=[None, ModuleType("openvino_telemetry")], ids=["unknown", "imported"])
def reporter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType | None]:
    """The module that reports, if somebody has imported it before."""
    monkeypatch.delitem(sys.modules, "openvino", raising=False)
    monkeypatch.delitem(sys.modules, "openvino_telemetry", raising=False)
    if request.param is not None:
        monkeypatch.setitem(sys.modules, "openvino_telemetry", request.param)
    yield request.param
    sys.modules.pop("openvino", None)


def test_several_threads_may_import_it(reporter: ModuleType | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "meta_path", [Finder(fails=False), *sys.meta_path])
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: import_openvino().is_quiet, range(4000)))
    finally:
        sys.setswitchinterval(interval)
    assert all(found) and sys.modules.get("openvino_telemetry") is reporter


@pytest.mark.parametrize("fails", [False, True])
def test_the_reporter_is_absent_only_meanwhile(reporter: ModuleType | None, monkeypatch: pytest.MonkeyPatch,
                                               fails: bool) -> None:
    monkeypatch.setattr(sys, "meta_path", [Finder(fails), *sys.meta_path])
    if fails:
        with pytest.raises(ImportError, match="no such library"):
            import_openvino()
    else:
        assert import_openvino().is_quiet and import_openvino() is sys.modules["openvino"]
    assert ("openvino_telemetry" in sys.modules) == (reporter is not None)
    assert sys.modules.get("openvino_telemetry") is reporter
