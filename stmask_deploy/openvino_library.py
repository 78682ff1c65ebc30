"""The package `openvino`, which may be absent."""
from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_REPORTER = "openvino_telemetry"  # a dependency of openvino, which works without it
_IMPORTING = threading.RLock()  # held while it cannot be imported


def import_openvino() -> Any:
    """Import `openvino` so that it does not report this to Google Analytics, as it would each time.

    All modules must import it here before they import anything from it. An `openvino` that is imported already is
    returned as it is.

    Raises:
        ImportError: it is not installed, or cannot be loaded.
    """
    with unreported():
        import openvino
    return openvino


@contextmanager
def unreported() -> Iterator[None]:
    """Packages imported in the block cannot import the module that they would report their use with."""
    with _IMPORTING:
        found = {_REPORTER: sys.modules[_REPORTER]} if _REPORTER in sys.modules else {}
        sys.modules[_REPORTER] = None  # type: ignore[assignment]
        try:
            yield
        finally:
            del sys.modules[_REPORTER]
            sys.modules.update(found)
