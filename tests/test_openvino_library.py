"""`openvino` without the module that reports its import."""
from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from types import ModuleType

import pytest

from stmask_deploy.openvino_library import import_openvino, unreported


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


def test_one_thread_at_a_time_as_all_share_the_modules(reporter: ModuleType | None) -> None:
    def enter() -> None:
        with unreported():
            entered.set()

    entered, thread = threading.Event(), threading.Thread(target=enter)
    with unreported(), unreported():
        thread.start()
        assert not entered.wait(0.2)
    thread.join()
    assert entered.is_set() and sys.modules.get("openvino_telemetry") is reporter


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
