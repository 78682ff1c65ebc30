"""Fixtures of the runtime's tests."""
from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_bundles import write_bundle


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """Writes a bundle into a folder of the given name, see `write_bundle`."""
    def make(name: str = "bundle", **changes: Any) -> Path:
        return write_bundle(tmp_path / name, **changes)

    return make


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with IR, for tests that only read it."""
    return write_bundle(tmp_path_factory.mktemp("shared") / "bundle", openvino=True)
