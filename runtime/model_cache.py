"""The folder in which libraries keep what they compiled, for those who ask for one."""
from __future__ import annotations

from pathlib import Path

from stmask_deploy.errors import InputError

from .backends import one_line


def make_cache(folder: str | Path) -> Path:
    """The folder for what libraries compiled, made if it is not there.

    Raises:
        InputError: it cannot be made.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cache folder {folder} cannot be made ({one_line(error)}); choose another one") from error
    return folder
