"""What a bundle's folder may hold, and how the files of a new one come into it."""
from __future__ import annotations

import contextlib
import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stmask_deploy.ending_signals import ENDING_SIGNALS
from stmask_deploy.errors import InputError, OutputError
from stmask_deploy.export import bundle_folder
from stmask_deploy.export.bundle_folder import BUNDLE_FILES, EXCHANGE_S, PREFIX, building, check_target
from stmask_deploy.pretrained import demo_bundle


def write(folder: Path, text: str, *names: str) -> None:
    for name in ("stmask.json", "frame.onnx", *names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def content(folder: Path) -> dict[str, str]:
    """Every file, hidden ones too."""
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


OLD = {"stmask.json": "old", "frame.onnx": "old", "openvino/frame.xml": "old", "openvino/frame.bin": "old"}
NEW = {"stmask.json": "new", "frame.onnx": "new"}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    write(folder, "old", "openvino/frame.xml", "openvino/frame.bin")
    return folder


def test_the_names_of_a_bundles_files() -> None:
    written = {path.relative_to(demo_bundle()).as_posix() for path in demo_bundle().rglob("*") if path.is_file()}
    assert written <= set(BUNDLE_FILES) and len(written) == 14
    assert {"frame_f16.onnx", "prototypes_int8.onnx", "openvino/temporal_int8.bin"} <= set(BUNDLE_FILES)
    assert not {"prototypes_f16.onnx", "instances_int8.onnx", "openvino/frame_f16.xml"} & set(BUNDLE_FILES)


@pytest.mark.parametrize("name", ["mine.txt", "openvino/mine.txt", "openvino/cache/blob", ".hidden", "frame.onnx.bak"])
def test_what_is_beside_a_bundle_is_not_replaced(bundle: Path, name: str) -> None:
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_text("keep")
    with pytest.raises(InputError, match="holds more than a bundle"):
        check_target(bundle, overwrite=True)


def test_a_bundle_is_replaced_if_that_is_asked_for(bundle: Path) -> None:
    check_target(bundle, overwrite=True)
    with pytest.raises(OutputError, match="give --overwrite") as caught:
        check_target(bundle, overwrite=False)
    assert caught.value.exit_code == 4


def test_places_that_hold_nothing(tmp_path: Path) -> None:
    check_target(tmp_path, overwrite=False)
    check_target(tmp_path / "new", overwrite=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="not a bundle"):
        check_target(tmp_path / "file", overwrite=True)


def test_places_where_nothing_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "file" / "new")
    for name in ("file/new", "link"):
        with pytest.raises(OutputError, match="file is a file and cannot be the output folder"):
            check_target(tmp_path / name, overwrite=False)


def test_a_link_to_where_nothing_is_yet(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "new")
    check_target(tmp_path / "link", overwrite=False)
    with building(tmp_path / "link", overwrite=False) as build:
        write(build, "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "new" / "stmask.json").is_file()


def test_a_new_folder(tmp_path: Path) -> None:
    with building(tmp_path / "a" / "bundle", overwrite=False) as build:
        write(build, "new")
        assert not (tmp_path / "a" / "bundle").exists()
    assert content(tmp_path) == {f"a/bundle/{name}": text for name, text in NEW.items()}


def test_files_are_replaced_and_the_folder_stays_the_one_it_is(bundle: Path) -> None:
    before = bundle.stat().st_ino  # a mount point cannot be renamed either
    with building(bundle, overwrite=True) as build:
        write(build, "new")
        assert {name: text for name, text in content(bundle).items() if not name.startswith(".")} == OLD
    assert content(bundle) == NEW and bundle.stat().st_ino == before
    assert not (bundle / "openvino").exists() and list(bundle.parent.iterdir()) == [bundle]


def test_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with building(Path("."), overwrite=False) as build:
        write(build, "new", "openvino/frame.xml")
    assert content(Path(".")) == {**NEW, "openvino/frame.xml": "new"}


def test_a_link_stays_a_link(bundle: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("bundle")
    with building(link, overwrite=True) as build:
        write(build, "new")
    assert link.is_symlink() and content(bundle) == NEW and set(tmp_path.iterdir()) == {bundle, link}


@pytest.mark.parametrize("is_there", [False, True])
def test_what_appears_in_the_meantime_is_not_lost(tmp_path: Path, is_there: bool) -> None:
    folder = tmp_path / "bundle"
    if is_there:
        folder.mkdir()
    with pytest.raises(InputError, match="not a bundle"), building(folder, overwrite=True) as build:
        write(build, "new")
        folder.mkdir(exist_ok=True)
        (folder / "mine.txt").write_text("keep")
    assert content(tmp_path) == {"bundle/mine.txt": "keep"}


def test_another_bundle_that_appears_in_the_meantime(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    with pytest.raises(OutputError, match="give --overwrite"), building(folder, overwrite=False) as first:
        write(first, "new")
        with building(folder, overwrite=False) as second:
            write(second, "old")
    assert content(tmp_path) == {"bundle/stmask.json": "old", "bundle/frame.onnx": "old"}


def test_two_exports_into_one_folder_do_not_mix(bundle: Path) -> None:
    with building(bundle, overwrite=True) as first:
        write(first, "first", "openvino/temporal.xml")
        with building(bundle, overwrite=True) as second:
            write(second, "second", "temporal.onnx")
        assert content(bundle)["temporal.onnx"] == "second"
    assert set(content(bundle).values()) == {"first"} and len(content(bundle)) == 3


def test_a_failure_in_the_middle_brings_everything_back(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if target == bundle / "frame.onnx" and self.read_text() == "new":
            raise OSError(errno.ENOSPC, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    message = "No space left on device, there or for temporary files in /.*nothing was written"
    with pytest.raises(OutputError, match=message), \
            building(bundle, overwrite=True) as build:
        write(build, "new", "temporal.onnx")
    assert content(bundle) == OLD


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit, OSError])
def test_whenever_the_exchange_is_broken_off_all_is_old_or_all_is_new(
        bundle: Path, monkeypatch: pytest.MonkeyPatch, raised: type[BaseException], moment: str) -> None:
    """Signals come behind a system call as well as before it; a failing disk comes before."""
    rename, outcomes = Path.rename, []
    for number in range(100):
        calls = iter(range(1000))

        def broken(self: Path, target: Path, calls: Iterator[int] = calls, number: int = number) -> Path:
            is_now = next(calls) == number
            if is_now and moment == "before":
                raise raised
            done = rename(self, target)
            if is_now:
                raise raised
            return done

        monkeypatch.setattr(Path, "rename", broken)
        try:
            with building(bundle, overwrite=True) as build:
                write(build, "new", "temporal.onnx", "openvino/frame.xml")
        except (KeyboardInterrupt, SystemExit, OutputError):
            outcomes.append(content(bundle))
        else:
            break
        finally:
            monkeypatch.undo()
        if outcomes[-1] != OLD:
            shutil.rmtree(bundle)
            write(bundle, "old", "openvino/frame.xml", "openvino/frame.bin")
    new = {**NEW, "temporal.onnx": "new", "openvino/frame.xml": "new"}
    assert len(outcomes) >= 9 and all(outcome in (OLD, new) for outcome in outcomes)
    assert outcomes.count(new) == (moment == "after") and content(bundle) == new


def kill_an_exchange(bundle: Path, number: int) -> bool:
    """Whether an export into `bundle` was killed after so many renames, when nothing in the process could tidy up."""
    program = f"""if True:
        import os
        from pathlib import Path
        from stmask_deploy.export.bundle_folder import building
        rename, calls = Path.rename, iter(range({number}))
        def killed(self, target):
            if next(calls, None) is None:
                os._exit(9)
            return rename(self, target)
        Path.rename = killed
        with building(Path({str(bundle)!r}), overwrite=True) as build:
            for name in ("stmask.json", "frame.onnx", "temporal.onnx"):
                (build / name).write_text("new")
    """
    done = subprocess.run([sys.executable, "-c", program], timeout=60)
    for left in (*bundle.glob(f"{PREFIX}*-going"), *bundle.glob(f"{PREFIX}*-gone")):
        os.utime(left, (time.time() - EXCHANGE_S,) * 2)
    return done.returncode != 0


@pytest.mark.parametrize("number", range(8))
def test_an_interrupted_export_leaves_an_empty_folder_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                            number: int) -> None:
    rename, calls = Path.rename, iter(range(number))

    def broken(self: Path, target: Path) -> Path:
        if next(calls, None) is None:
            monkeypatch.undo()
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", broken)
    with contextlib.suppress(KeyboardInterrupt), building(tmp_path, overwrite=False) as build:
        write(build, "new", "temporal.onnx", "openvino/frame.xml", "openvino/frame.bin")
    left = content(tmp_path)
    assert left == {} or left["stmask.json"] == "new"
    check_target(tmp_path, overwrite=True)  # it may be used
    assert left or not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", range(10))
@pytest.mark.parametrize("has_ir", [True, False])  # without, its files may all be out of the way
def test_what_a_killed_exchange_left_is_settled_by_the_next(bundle: Path, has_ir: bool, number: int) -> None:
    if not has_ir:
        shutil.rmtree(bundle / "openvino")
    old = content(bundle)
    was_killed = kill_an_exchange(bundle, number)
    with pytest.raises(OutputError, match="exists; give --overwrite"):
        check_target(bundle, overwrite=False)
    found = {name: text for name, text in content(bundle).items() if not name.startswith(PREFIX)}
    assert found == (old if was_killed else {**NEW, "temporal.onnx": "new"})
    for left in bundle.glob(f"{PREFIX}*"):
        os.utime(left, (0, 0))
    check_target(bundle, overwrite=True)
    assert not list(bundle.glob(f"{PREFIX}*"))


@pytest.mark.parametrize("number", range(1, 6))
def test_an_export_after_a_killed_one_stays(bundle: Path, number: int) -> None:
    shutil.rmtree(bundle / "openvino")
    assert kill_an_exchange(bundle, number)
    with building(bundle, overwrite=True) as build:
        write(build, "newer")
    found = {name: text for name, text in content(bundle).items() if not name.startswith(PREFIX)}
    assert found == {"stmask.json": "newer", "frame.onnx": "newer"}


def test_an_exchange_that_goes_on_is_waited_for(bundle: Path) -> None:
    other = bundle / f"{PREFIX}other-going"
    other.mkdir()
    (bundle / "stmask.json").rename(other / "stmask.json")

    def finish() -> None:
        (other / "stmask.json").rename(bundle / "stmask.json")  # fails where the file was moved by anyone else
        other.rmdir()
        finished.append(True)

    finished: list[bool] = []

    timer = threading.Timer(0.3, finish)
    timer.start()
    with pytest.raises(OutputError, match="exists; give --overwrite"):
        check_target(bundle, overwrite=False)
    timer.join()
    assert finished and content(bundle) == OLD


def test_a_build_beside_a_folder_that_never_came_is_removed_after_a_day(tmp_path: Path) -> None:
    stale, fresh, aside = (tmp_path / f"{PREFIX}{name}" for name in ("stale", "fresh", "aside-going"))
    for folder in (stale, fresh, aside):
        folder.mkdir()
    for folder in (stale, aside):
        os.utime(folder, (0, 0))
    check_target(tmp_path / "bundle", overwrite=False)
    assert not stale.exists() and fresh.exists() and aside.exists()


@pytest.mark.parametrize(("raised", "expected"), [
    (OSError(errno.ENOSPC, "No space left on device"), OutputError), (BrokenPipeError(), BrokenPipeError),
    (InputError("no"), InputError), (KeyboardInterrupt(), KeyboardInterrupt)])
def test_failures_leave_nothing(bundle: Path, raised: BaseException, expected: type[BaseException]) -> None:
    with pytest.raises(expected) as caught, building(bundle, overwrite=True) as build:
        write(build, "new")
        raise raised
    assert type(caught.value) is expected and content(bundle) == OLD


@pytest.mark.parametrize("number", ENDING_SIGNALS)
def test_a_signal_leaves_nothing(bundle: Path, number: int) -> None:
    with pytest.raises(SystemExit) as caught, building(bundle, overwrite=True) as build:
        write(build, "new")
        os.kill(os.getpid(), number)
        time.sleep(5)  # ended at once
    assert caught.value.code == 128 + number and content(bundle) == OLD
    assert all(signal.getsignal(one) is signal.SIG_DFL for one in ENDING_SIGNALS)


def test_an_ignored_signal_stays_ignored(bundle: Path) -> None:
    """As under nohup."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with building(bundle, overwrite=True) as build:
            os.kill(os.getpid(), signal.SIGTERM)
            write(build, "new")
        assert content(bundle) != OLD and signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.mark.parametrize("second", ENDING_SIGNALS)
def test_a_second_signal_does_not_interrupt_the_clean_up(bundle: Path, monkeypatch: pytest.MonkeyPatch,
                                                         second: int) -> None:
    discard = bundle_folder._discard

    def asked_again(folder: Path) -> None:
        os.kill(os.getpid(), second)
        discard(folder)

    monkeypatch.setattr(bundle_folder, "_discard", asked_again)
    with pytest.raises(SystemExit), building(bundle, overwrite=True):
        os.kill(os.getpid(), signal.SIGTERM)
    assert content(bundle) == OLD and not list(bundle.glob(f"{PREFIX}*"))


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_a_new_bundle_may_be_read_by_whom_any_new_folder_may(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with building(tmp_path / "new", overwrite=False) as build:
            write(build, "new")
    finally:
        os.umask(before)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o777 & ~umask
