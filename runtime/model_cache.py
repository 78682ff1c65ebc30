"""The optional folder in which libraries cache compiled models."""
from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from stmask_deploy.errors import InputError
from stmask_deploy.folder_lock import awaited_lock

from .backends import one_line

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


def held_cache(folder: Path | None) -> AbstractContextManager[None]:
    """Hold a cache folder alone, after whoever holds it; nothing without a folder, or where it cannot be locked.

    OpenVINO maps entries that another process is still writing, which ends in SIGBUS.
    """
    return nullcontext() if folder is None else awaited_lock(folder / LOCK_FILE)
