"""Files that appear under their final name only when they are complete."""
from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .errors import OutputError


@contextmanager
def atomic_file(path: Path, *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """A binary file for writing that takes the place of `path` when the block ends without an exception.

    It is written under a temporary name in the same folder, synced to disk and renamed; a failure leaves whatever was
    at `path` before, and no temporary file.

    Raises:
        OutputError: `path` exists and `overwrite` is False, or it cannot be written.
    """
    check_writable(path, overwrite=overwrite)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OutputError:
        raise
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def check_writable(path: Path, *, overwrite: bool) -> None:
    """Refuse early what would fail or destroy something later.

    Raises:
        OutputError: `path` exists and `overwrite` is False, it is a folder, or its folder does not exist.
    """
    if path.is_dir():
        raise OutputError(f"{path} is a folder; name a file to write")
    if not path.parent.is_dir():
        raise OutputError(f"{path} cannot be written: folder {path.parent} does not exist")
    if path.exists() and not overwrite:
        raise OutputError(f"{path} exists already; use --overwrite (overwrite=True) or another output folder")


def cannot_write(path: Path, error: OSError) -> OutputError:
    """The error to raise for `path` when the system refused."""
    reason = error.strerror or str(error)
    return OutputError(f"{path} cannot be written: {reason}; free some space or choose another output folder")


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # not every file system lets a folder be opened or synced; the file itself is safe
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
