"""Writing a bundle to its folder atomically, replacing nothing but an earlier bundle."""
from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from stmask_deploy.atomic import check_folder
from stmask_deploy.bundle import DESCRIPTION_FILE, OPENVINO_FOLDER, OWN_GRAPHS, REPORT_FILE, ROLES, has_own_graph
from stmask_deploy.ending_signals import ended_by_signals
from stmask_deploy.errors import InputError, OutputError, StmaskError

PREFIX = ".stmask-export-"  # name prefix of the folders in which exports build
# Name suffixes, see `_aside`.
_GOING, _GONE = "-going", "-gone"
STALE_S = 24 * 3600.0  # build folders older than this are left over from killed exports
EXCHANGE_S = 5.0  # an exchange takes milliseconds: one older than this was interrupted


def _bundle_files() -> tuple[str, ...]:
    """All files that a bundle may contain, the description first."""
    names = [DESCRIPTION_FILE, REPORT_FILE]
    for backend, forms in (("onnxruntime", ("{}.onnx",)),
                           ("openvino", (f"{OPENVINO_FOLDER}/{{}}.xml", f"{OPENVINO_FOLDER}/{{}}.bin"))):
        stems = [*ROLES, *(f"{role}_{precision}" for precision in OWN_GRAPHS[backend]
                           for role in ROLES if has_own_graph(role, backend, precision))]
        names += [form.format(stem) for stem in stems for form in forms]
    return tuple(names)


BUNDLE_FILES = _bundle_files()


def check_target(folder: Path, overwrite: bool) -> None:
    """Check that writing a bundle to `folder` would destroy nothing else; only cleans up after killed exports.

    Waits if another export is exchanging files in the folder.

    Raises:
        InputError: the folder holds something other than a bundle, or other files beside it.
        OutputError: it holds a bundle and `overwrite` is False, or it cannot be read, written or created.
    """
    if not os.path.exists(folder):
        check_folder(Path(os.path.realpath(folder)))  # follows links, see `building`
    try:
        _remove_stale(Path(os.path.realpath(folder)).parent)  # new bundles are built beside their folder
        if folder.is_dir():
            _settle_all(folder)
            _remove_stale(folder)
        if not folder.exists() or (folder.is_dir() and not _not_ours(os.listdir(folder))):
            return
        is_bundle = (folder / DESCRIPTION_FILE).is_file()
        # Other folders may be large, so they are not listed recursively.
        names = [path.relative_to(folder).as_posix() for path in folder.rglob("*")] if is_bundle else []
    except OSError as error:
        raise _cannot_write(folder, error) from error
    if not is_bundle:
        raise InputError(f"{folder} exists and is not a bundle; choose another folder with -o")
    others = sorted(set(_not_ours(names)) - {*BUNDLE_FILES, OPENVINO_FOLDER})
    if others:
        raise InputError(f"{folder} holds more than a bundle ({', '.join(others[:3])}), which would be lost; "
                         "choose another folder with -o")
    if not overwrite:
        raise OutputError(f"bundle {folder} exists; give --overwrite to replace it, or another folder with -o")


def _remove_stale(folder: Path) -> None:
    """Remove the build folders of killed exports; recent ones may belong to a running export."""
    for build in folder.glob(f"{PREFIX}*"):
        if not build.name.endswith((_GOING, _GONE)) and _age_s(build) >= STALE_S:
            _discard(build)


def _not_ours(names: Iterable[str]) -> list[str]:
    """`names` without the build folders of exports."""
    return [name for name in names if not name.startswith(PREFIX)]


@contextlib.contextmanager
def building(folder: Path, overwrite: bool) -> Iterator[Path]:
    """A temporary build folder, whose files are moved to `folder` on success; deleted on failure.

    An existing `folder` is kept, since it may be a mount point, the working directory or the target of a link; only the
    bundle's files in it are replaced. SIGTERM and SIGHUP count as failure.

    Raises:
        OutputError: something cannot be written, or a bundle has appeared in `folder` and `overwrite` is False.
        InputError: something else has appeared in `folder`.
    """
    build: Path | None = None
    with ended_by_signals():
        try:
            place = Path(os.path.realpath(folder))
            place.parent.mkdir(parents=True, exist_ok=True)
            build = (place if place.is_dir() else place.parent) / f"{PREFIX}{secrets.token_hex(8)}"
            build.mkdir()  # with the permissions that folders get here, which `mkdtemp` would not give it
            yield build
            check_target(folder, overwrite)  # again, because the folder may have changed meanwhile
            if place.exists():
                _exchange(build, place)
            else:
                build.rename(place)
        except (StmaskError, BrokenPipeError):  # the latter comes from printing to a closed pipe
            raise
        except OSError as error:
            raise _cannot_write(folder, error) from error
        finally:
            if build is not None:
                _discard(build)


def _cannot_write(folder: Path, error: OSError) -> OutputError:
    reason = str(error.strerror or error)
    if error.errno == errno.ENOSPC:
        reason += f", there or for temporary files in {tempfile.gettempdir()}"
    return OutputError(f"bundle {folder} cannot be written ({reason}); nothing was written")


def _exchange(build: Path, folder: Path) -> None:
    """Move the old bundle's files out of `folder` and those of `build` into it, all or none.

    The description is moved out first and moved in last, so a concurrent reader never sees a partial bundle. The
    location of the old files records the progress: `_settle` can complete or undo the exchange wherever it stopped.
    """
    going, gone = _aside(folder, build.name)
    try:
        for name in BUNDLE_FILES:
            _move(folder / name, going / name)
        going.mkdir(exist_ok=True)
        going.rename(gone)
        for name in reversed(BUNDLE_FILES):
            _move(build / name, folder / name)
    finally:
        _settle(folder, build.name)


def _move(source: Path, target: Path) -> None:
    if source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        source.rename(target)


def _settle_all(folder: Path) -> None:
    """Settle all interrupted exchanges, after waiting for running ones, which take milliseconds."""
    end = time.monotonic() + EXCHANGE_S
    while (left := _left(folder)) and time.monotonic() < end and min(map(_age_s, left)) < EXCHANGE_S:
        time.sleep(0.02)
    for name in {path.name.removesuffix(_GOING).removesuffix(_GONE) for path in left}:
        _settle(folder, name)


def _settle(folder: Path, name: str) -> None:
    """Complete the exchange of the build `name` if its last file is in place, else undo it.

    Idempotent; may be interrupted and repeated.
    """
    going, gone = _aside(folder, name)
    if gone.exists():
        if (folder / DESCRIPTION_FILE).exists():
            _discard(gone)
        else:
            for file in BUNDLE_FILES:
                (folder / file).unlink(missing_ok=True)  # files of the new bundle
            gone.rename(going)
    if going.exists():
        for file in reversed(BUNDLE_FILES):
            _move(going / file, folder / file)
        _discard(going)
    with contextlib.suppress(OSError):  # not empty, or missing
        (folder / OPENVINO_FOLDER).rmdir()


def _aside(folder: Path, name: str) -> tuple[Path, Path]:
    """Folders for the old bundle's files during the exchange of the build `name`: while some, and once all, are moved.
    """
    return folder / f"{name}{_GOING}", folder / f"{name}{_GONE}"


def _left(folder: Path) -> list[Path]:
    return [path for end in (_GOING, _GONE) for path in folder.glob(f"{PREFIX}*{end}")]


def _age_s(path: Path) -> float:
    """Seconds since `path` was last modified; 0 if it no longer exists."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _discard(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
