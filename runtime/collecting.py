"""Whether the garbage collector is at work: what it ends is ended at a moment, and by a thread, that nobody chose."""
from __future__ import annotations

import gc
import threading
from collections.abc import Mapping
from typing import Any

_state = threading.local()


def is_collecting() -> bool:
    """Whether this thread is in the middle of collecting garbage.

    It may then hold any lock, since it was about to do something else: it must not wait for another thread.
    """
    return getattr(_state, "is_collecting", False)


def _note(phase: str, _info: Mapping[str, Any]) -> None:
    _state.is_collecting = phase == "start"


gc.callbacks.append(_note)
