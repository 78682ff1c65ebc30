"""The optional folder in which libraries cache compiled models."""
from __future__ import annotations

from pathlib import Path

from stmask_deploy.errors import InputError

from .backends import one_line


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
