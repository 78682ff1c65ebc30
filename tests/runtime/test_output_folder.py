"""Where results go, and where they may not."""
from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from stmask_deploy.errors import InputError, OutputError
from stmask_deploy.runtime.output_folder import OutputFolder


def claim(output: OutputFolder, overwrite: bool, inputs: Sequence[Path] = ()) -> None:
    with output.claimed(overwrite, inputs):
        pass


def test_a_new_folder_is_made_only_when_it_is_needed(tmp_path: Path) -> None:
    output = OutputFolder(tmp_path / "a" / "b")
    output.check(overwrite=False)
    assert not (tmp_path / "a").exists()
    with output.claimed(overwrite=False):
        assert output.path.is_dir() and output.existing() == ()


@pytest.mark.parametrize("name", ["results.jsonl", "results.json", "video.mp4", "video.part.mp4", "frame.png"])
def test_results_are_replaced_only_when_asked(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    (tmp_path / "notes.txt").write_text("mine")
    output = OutputFolder(tmp_path)
    for step in (output.check, partial(claim, output)):
        with pytest.raises(OutputError, match=f"holds results already \\({name}\\); use --overwrite"):
            step(overwrite=False)
    output.check(overwrite=True)
    assert output.existing() == (tmp_path / name,)
    claim(output, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_one_run_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text("mine")
    with OutputFolder(tmp_path).claimed(overwrite=True):
        (tmp_path / "results.jsonl").write_text("new")
        for step in (OutputFolder(tmp_path).check, partial(claim, OutputFolder(tmp_path))):
            for overwrite in (False, True):
                with pytest.raises(OutputError, match="another run is writing to .*; wait until it ends"):
                    step(overwrite=overwrite)
        claim(OutputFolder(tmp_path / "below"), overwrite=False)
    assert (tmp_path / "results.jsonl").read_text() == "new"
    claim(OutputFolder(tmp_path), overwrite=True)


def test_what_ends_just_before_the_claim_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mkdir = Path.mkdir
    monkeypatch.setattr(Path, "mkdir", lambda path, **options: (
        mkdir(path, **options), (path / "results.jsonl").write_text("precious")))
    with pytest.raises(OutputError, match="holds results already"):
        claim(OutputFolder(tmp_path / "out"), overwrite=False)
    assert (tmp_path / "out" / "results.jsonl").read_text() == "precious"


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    claim(OutputFolder(tmp_path / "out"), overwrite=False)
    assert (tmp_path / "out").is_dir()


def test_a_pipe_in_the_way(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="is a file"):
        OutputFolder(tmp_path / "pipe").check(overwrite=False)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_does_not_keep_the_folder(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with OutputFolder(tmp_path).claimed(overwrite=False):
        child = os.fork()
        if not child:
            os.close(writing)
            os.read(reading, 1)  # until the parent has closed the pipe
            os._exit(0)
    os.close(reading)
    claim(OutputFolder(tmp_path), overwrite=False)
    os.close(writing)
    os.waitpid(child, 0)


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(OutputError, match="is a file"):
            OutputFolder(path).check(overwrite=False)


def test_a_folder_that_is_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(OutputError, match="is not writable"):
        OutputFolder(tmp_path / "new").check(overwrite=False)


def test_a_system_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match="No space left"):
        claim(OutputFolder(tmp_path / "new"), overwrite=False)


@pytest.mark.parametrize("name", ["results.jsonl", "video.mp4", "frame.png"])
def test_what_a_run_reads_is_never_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    (tmp_path / "other.mp4").write_text("mine")
    (tmp_path / "elsewhere").symlink_to(tmp_path, target_is_directory=True)
    output = OutputFolder(tmp_path / "elsewhere")
    for step in (output.check, partial(claim, output)):
        with pytest.raises(InputError, match=f"{name} is an input of this run and would be replaced"):
            step(overwrite=True, inputs=(tmp_path / "other.mp4", tmp_path / name))
    assert (tmp_path / name).read_text() == "precious"
    claim(output, overwrite=True, inputs=(tmp_path / "other.mp4", tmp_path / "gone.png"))
    assert (tmp_path / "other.mp4").exists() and not (tmp_path / name).exists()


def test_folders_one_may_not_enter(shut_folder: Path) -> None:
    with pytest.raises(OutputError, match="shut is not writable"):
        OutputFolder(shut_folder / "out").check(overwrite=False)


def test_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "gone")
    with pytest.raises(OutputError, match="out is a link that leads nowhere"):
        OutputFolder(tmp_path / "out").check(overwrite=True)


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    for name in (".results.json.123.tmp", ".other.json.123.tmp", ".results.json.tmp"):
        (tmp_path / name).touch()
    claim(OutputFolder(tmp_path), overwrite=False)
    assert {path.name for path in tmp_path.iterdir()} == {".other.json.123.tmp", ".results.json.tmp"}


@pytest.mark.parametrize("name", ["results.jsonl", "results.json", "video.mp4", "video.part.mp4", "frame.png"])
def test_files_are_not_written_through_links_that_lead_nowhere(tmp_path: Path, name: str) -> None:
    folder = OutputFolder(tmp_path / "out")
    folder.path.mkdir()
    (folder.path / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match=f"holds results already .{name}"):
        folder.check(overwrite=False)
    with folder.claimed(overwrite=True):
        assert not os.path.lexists(folder.path / name)
