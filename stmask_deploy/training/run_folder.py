"""The folder of a training run: whether it may be used, and what an earlier run left in it."""
from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ..atomic import check_folder, remove_leftovers
from ..errors import InputError, OutputError
from ..folder_lock import locked_folder
from .log import LOG_FILE
from .snapshot import MODEL_FILE, STATE_FILE

FILES = (STATE_FILE, MODEL_FILE, LOG_FILE)


@contextmanager
def claimed_folder(folder: Path, *, overwrite: bool, resume: bool, inputs: Sequence[Path] = ()) -> Iterator[None]:
    """Create the folder of a run, and keep other runs out of it until the block ends.

    An earlier run stays in it: `clear_folder` removes that.

    Args:
        folder: the folder.
        overwrite: whether an earlier run may be removed.
        resume: whether an earlier run goes on.
        inputs: files that the run reads, which must not be removed with an earlier run.

    Raises:
        InputError: one of the inputs would be removed.
        OutputError: it holds a run already, another run writes to it, or it cannot be written.
    """
    files = [folder / name for name in FILES]
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked_folder(folder))
            for file in files:
                if file.is_dir():
                    raise OutputError(f"{file} is a folder; choose another one for the run")
            if not resume:
                _check(files, overwrite, inputs)
            check_folder(folder)
            for file in files:
                remove_leftovers(file)
        except OutputError:  # an OSError too
            raise
        except OSError as error:
            raise _cannot_write(folder, error) from error
        yield


def clear_folder(folder: Path) -> None:
    """Remove the files of an earlier run from `folder`.

    Raises:
        OutputError: that is not possible.
    """
    try:
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error


def _cannot_write(folder: Path, error: OSError) -> OutputError:
    return OutputError(f"{folder} cannot be written: {error.strerror or error}; choose another folder")


def _check(files: Sequence[Path], overwrite: bool, inputs: Sequence[Path]) -> None:
    there = [file for file in files if os.path.exists(file)]
    for path in inputs if there else ():
        if os.path.exists(path) and any(path.samefile(file) for file in there):
            raise InputError(f"{path} is an input of this run and would be replaced; use another folder with -o")
    if there and not overwrite:
        cure = "--resume to go on with it, --overwrite to lose it" if files[0] in there else (
            "--overwrite to lose it (it was ended before it was first saved, so it cannot go on)")
        raise OutputError(f"{files[0].parent} holds a training run already; use {cure}, or another folder")
