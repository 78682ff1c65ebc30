"""How processes of this Python are started."""
from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from .ending_signals import interrupts_put_off

_SAFE_PATH = "PYTHONSAFEPATH"  # from Python 3.11 on


@contextlib.contextmanager
def spawning() -> Iterator[None]:
    """Processes that `multiprocessing` spawns in the block ignore Ctrl-C, where possible, and the working directory.

    Ctrl-C reaches all processes, and this one ends the others. Files of the working directory, `types.py` for instance,
    would be imported instead of Python's own. Queues and pools start a process too, when they are made.
    """
    before = os.environ.get(_SAFE_PATH)
    os.environ[_SAFE_PATH] = "1"
    try:
        with interrupts_put_off():
            yield
    finally:
        os.environ.pop(_SAFE_PATH, None)
        if before is not None:
            os.environ[_SAFE_PATH] = before
