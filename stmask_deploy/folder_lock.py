"""Locks on folders and files, so that two processes do not write to one place at once."""
from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from .errors import OutputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_OPENED: set[int] = set()  # descriptors that hold locks, which a forked process would hold too, longer than this one


def _close_all() -> None:
    while _OPENED:
        os.close(_OPENED.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_all)


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
    _OPENED.add(folder)
    try:
        if not _locked(folder):
            raise OutputError(f"another run is writing to {path}; wait until it ends, or use another folder")
        yield
    finally:
        if folder in _OPENED:  # not in a forked process, which has closed it
            _unlock(folder)  # a process that another thread forks right now may hold it too
            _OPENED.remove(folder)
            os.close(folder)


@contextmanager
def awaited_lock(path: Path) -> Iterator[None]:
    """Hold a lock file, which is made and stays, after whoever holds it; nothing where it cannot be made or locked."""
    with ExitStack() as stack:
        with suppress(OSError):
            file = stack.enter_context(open(path, "ab"))
            _locked(file.fileno(), waits=True)
            stack.callback(_unlock, file.fileno())  # a process that was forked meanwhile would hold it on
        yield


def _locked(opened: int, waits: bool = False) -> bool:
    """Lock what was opened, unless the system has no locks; False if another process holds it, unless this one waits.
    """
    if fcntl is not None:
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        except OSError:  # some network file systems have no locks
            pass
    return True


def _unlock(opened: int) -> None:
    if fcntl is not None:
        with suppress(OSError):
            fcntl.flock(opened, fcntl.LOCK_UN)
