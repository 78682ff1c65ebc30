from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from stmask_deploy import atomic
from stmask_deploy.atomic import atomic_file, cannot_write, check_folder, check_writable, remove_leftovers
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


def test_a_device_is_never_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="no file that could be replaced"), atomic_file(pipe, overwrite=overwrite):
            raise AssertionError("the block must not run")
    assert pipe.is_fifo() and names(tmp_path) == ["pipe"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target.json", tmp_path / "link.json"
    target.write_bytes(b"old")
    link.symlink_to(target.name)
    with atomic_file(link, overwrite=True) as file:
        file.write(b"new")
    assert link.is_symlink() and target.read_bytes() == b"new" and names(tmp_path) == ["link.json", "target.json"]


def test_a_link_into_a_folder_that_is_missing_is_refused_early(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "missing" / "out.json")
    with pytest.raises(OutputError, match="folder .*missing does not exist"):
        check_writable(tmp_path / "link", overwrite=False)


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


def test_what_to_do_depends_on_the_reason() -> None:
    for code, told in ((errno.ENOSPC, "free some space or choose"), (errno.EDQUOT, "free some space or choose"),
                       (errno.EACCES, "Permission denied; choose"), (errno.EEXIST, "File exists; choose")):
        assert told in str(cannot_write(Path("x"), OSError(code, os.strerror(code))))


def test_a_deleted_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(OutputError, match="the working directory does not exist any more"):
        check_folder(Path("out"))
    check_folder(tmp_path / "out")


def test_names_that_are_too_long_are_refused_by_the_system_in_words(tmp_path: Path) -> None:
    path = tmp_path / f"{'a' * 300}.json"
    check_writable(path, overwrite=False)
    with pytest.raises(OutputError, match="File name too long; choose another"), atomic_file(path):
        pass


def test_folders_that_can_be_made(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "new", tmp_path / "new" / "below"):
        check_folder(folder)
    assert names(tmp_path) == []


@pytest.mark.parametrize("below", ["", "below"])
def test_folders_that_cannot_be_made(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="file is a file"):
        check_folder(tmp_path / "file" / below)
    with pytest.raises(OutputError, match="link is a link that leads nowhere; remove it"):
        check_folder(tmp_path / "link" / below)


@pytest.mark.parametrize("below", ["", "below"])
def test_a_folder_one_may_not_enter(shut_folder: Path, below: str) -> None:
    with pytest.raises(OutputError, match=r"shut is not writable"):
        check_folder(shut_folder / below)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter anything")
def test_a_folder_one_really_may_not_enter(tmp_path: Path) -> None:
    tmp_path.chmod(0)
    try:
        with pytest.raises(OutputError, match="is not writable"):
            check_folder(tmp_path / "below")
    finally:
        tmp_path.chmod(0o700)


def test_leftovers_are_those_of_a_file_alone(tmp_path: Path) -> None:
    names = {".a[1].json.7.tmp": False, ".a[1].json.8.tmp": False, ".a1.json.7.tmp": True, "a[1].json.7.tmp": True}
    for name in names:
        (tmp_path / name).touch()
    remove_leftovers(tmp_path / "a[1].json")
    assert {path.name for path in tmp_path.iterdir()} == {name for name, stays in names.items() if stays}
    remove_leftovers(tmp_path / "nothing" / "x")


def test_links_under_temporary_names_lead_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "precious").write_bytes(b"old")
    monkeypatch.setattr(atomic.secrets, "token_hex", lambda _: "guessed")
    (tmp_path / ".out.json.guessed.tmp").symlink_to(tmp_path / "precious")
    with pytest.raises(OutputError, match="File exists"), atomic_file(tmp_path / "out.json") as file:
        file.write(b"new")
    assert (tmp_path / "precious").read_bytes() == b"old" and not (tmp_path / "out.json").exists()


def test_two_writers_at_once_use_two_temporary_files(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with atomic_file(path, overwrite=True) as first, atomic_file(path, overwrite=True) as second:
        first.write(b"first")
        second.write(b"second")
        first.flush()
        second.flush()
        assert sorted(path.read_bytes() for path in tmp_path.iterdir()) == [b"first", b"second"]
    assert path.read_bytes() == b"first"  # whose block ends last


def test_a_drive_that_does_not_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "exists", lambda _: False)
    with pytest.raises(OutputError, match="/ does not exist; choose another folder with -o"):
        check_folder(tmp_path / "out")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux only")
def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(20):
        with atomic_file(tmp_path / str(number)) as file:
            file.write(b"x")
    assert len(os.listdir("/proc/self/fd")) < before + 10
