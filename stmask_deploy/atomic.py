"""Files that appear under their final name only when they are complete."""
from __future__ import annotations

import errno
import glob
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .errors import OutputError


@contextmanager
def atomic_file(path: Path, *, overwrite: bool = False) -> Iterator[BinaryIO]:
    """A binary file for writing that replaces `path` when the block ends without an exception.

    It is written under a temporary name in the same folder, synced to disk and renamed. On failure the previous
    contents of `path` are kept and the temporary file is removed. If `path` is a link, it is the file it leads to that
    is replaced.

    Raises:
        OutputError: `path` exists and `overwrite` is False, or it cannot be written.
    """
    check_writable(path, overwrite=overwrite)
    path = Path(os.path.realpath(path))
    # A name that nobody can have prepared a link under; processes of two machines may have the same number.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
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
    """Refuse early any path whose writing would later fail or overwrite something.

    Raises:
        OutputError: `path` exists and `overwrite` is False, it is a folder or device, or its folder does not exist.
    """
    # `os.path` functions return False where the system denies access; those of `Path` raise.
    if os.path.isdir(path):
        raise OutputError(f"{path} is a folder; name a file to write")
    folder = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(folder):
        raise OutputError(f"{path} cannot be written: folder {folder if os.path.islink(path) else path.parent} does "
                          "not exist")
    if os.path.exists(path) and not os.path.isfile(path):
        raise OutputError(f"{path} is no file that could be replaced; name a file to write")
    if os.path.exists(path) and not overwrite:
        raise OutputError(f"{path} exists already; use --overwrite (overwrite=True) or another name")


def remove_leftovers(path: Path) -> None:
    """Delete the temporary files that killed processes left of `path`, beside the file that a link leads to.

    Raises:
        OSError: one cannot be deleted.
    """
    path = Path(os.path.realpath(path))
    for temporary in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        temporary.unlink(missing_ok=True)


def check_folder(folder: Path) -> None:
    """Refuse early a folder that cannot be created or written to.

    Raises:
        OutputError: its nearest existing ancestor (or itself) is a file or not writable, or the path contains a
            dangling link.
    """
    try:
        nearest = folder.absolute()
    except OSError as error:
        raise OutputError("the working directory does not exist any more; give an absolute folder with -o") from error
    while not os.path.exists(nearest):
        if os.path.islink(nearest):
            raise OutputError(f"{nearest} is a link that leads nowhere; remove it or choose another folder with -o")
        if nearest == nearest.parent:  # a drive of Windows
            raise OutputError(f"{nearest} does not exist; choose another folder with -o")
        nearest = nearest.parent
    if not os.path.isdir(nearest):
        raise OutputError(f"{nearest} is a file and cannot be the output folder; choose another with -o")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(f"folder {nearest} is not writable; choose another with -o")


def cannot_write(path: Path, error: OSError) -> OutputError:
    """The error to raise after the system failed to write `path`."""
    reason = error.strerror or str(error)
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    cure = "free some space or choose another output folder" if is_full else "choose another output folder"
    return OutputError(f"{path} cannot be written: {reason}; {cure}")


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # not every file system can open or sync a folder; the file itself is safe
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
