"""The optional folder in which libraries cache compiled models."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stmask_deploy.errors import InputError

from .backends import one_line

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = "stmask.lock"


def make_cache(folder: str | Path) -> Path:
    """Create the cache folder if it does not exist, and return it.

    Raises:
        InputError: it cannot be created.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cache folder {folder} cannot be made ({one_line(error)}); choose another one") from error
    return folder


@contextmanager
def held_cache(folder: Path | None) -> Iterator[None]:
    """Hold a cache folder alone, after whoever holds it; nothing without a folder, or where it cannot be locked.

    OpenVINO maps entries that another process is still writing, which ends in SIGBUS.
    """
    if folder is None or fcntl is None:
        yield
        return
    try:
        lock = open(folder / LOCK_FILE, "ab")
    except OSError:  # a folder that cannot be written to: nobody writes entries either
        yield
        return
    with lock:
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_UN)  # a process that was forked meanwhile would hold it on
