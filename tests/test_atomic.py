from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from stmask_deploy.atomic import atomic_file, check_writable
from stmask_deploy.errors import OutputError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_appears_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    with atomic_file(path) as file:
        file.write(b"first")
        file.flush()
        assert not path.exists()
        assert len(names(tmp_path)) == 1
    assert path.read_bytes() == b"first"
    assert names(tmp_path) == ["out.json"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_keeps_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "out.json"
    path.write_bytes(b"old")
    with pytest.raises(error), atomic_file(path, overwrite=True) as file:
        file.write(b"half")
        raise error
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["out.json"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "out.json"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OutputError, match="out.json cannot be written: No space left"), \
            atomic_file(path, overwrite=True) as file:
        file.write(b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["out.json"]


def test_overwrites_only_when_told(tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    path.write_bytes(b"old")
    with pytest.raises(OutputError, match="exists already; use --overwrite"), atomic_file(path):
        raise AssertionError("the block must not run")
    with atomic_file(path, overwrite=True) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


def test_paths_that_cannot_be_files(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder"):
        check_writable(tmp_path, overwrite=True)
    with pytest.raises(OutputError, match="does not exist"):
        check_writable(tmp_path / "no" / "out.json", overwrite=True)


def test_the_usual_permissions(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    with atomic_file(tmp_path / "out") as file:
        file.write(b"")
    assert (tmp_path / "out").stat().st_mode == plain.stat().st_mode


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="Permission denied"), atomic_file(tmp_path / "out"):
            pass
    finally:
        tmp_path.chmod(0o700)
