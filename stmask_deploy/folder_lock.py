"""A lock on a folder, so that two commands do not write to it at once."""
from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import OutputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def locked_folder(path: Path) -> Iterator[None]:
    """Hold the lock of a folder, which no process leaves behind; there is none where the system has no locks.

    Raises:
        OutputError: another run holds it.
    """
    try:
        folder = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))  # a pipe would wait for a writer
    except OSError:  # there is no such folder, or it cannot be opened, as on Windows
        yield
        return
    try:
        if not _locked(folder):
            raise OutputError(f"another run is writing to {path}; wait until it ends, or use another folder with -o")
        try:
            yield
        finally:
            _unlock(folder)
    finally:
        os.close(folder)


def _locked(folder: int) -> bool:
    """Lock an opened folder, unless the system has no locks; False if another run holds the lock."""
    if fcntl is not None:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # some network file systems have no locks
            pass
    return True


def _unlock(folder: int) -> None:
    """Release the lock, which a forked process shares: closing the folder alone would leave it to that process."""
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(folder, fcntl.LOCK_UN)
