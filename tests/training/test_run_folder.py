"""The folder of a training run is one run's, and an earlier one is only lost where that was asked for."""
from __future__ import annotations

from pathlib import Path

import pytest

from stmask_deploy.errors import InputError, OutputError
from stmask_deploy.training.run_folder import FILES, claimed_folder, clear_folder


def put(folder: Path, *names: str) -> dict[str, bytes]:
    for name in names:
        (folder / name).write_bytes(f"earlier {name}".encode())
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_an_earlier_run_stays_until_it_is_cleared(tmp_path: Path) -> None:
    earlier = put(tmp_path, *FILES, "own.txt")
    with claimed_folder(tmp_path, overwrite=True, resume=False):
        assert contents(tmp_path) == earlier
        clear_folder(tmp_path)
        assert list(contents(tmp_path)) == ["own.txt"]
        clear_folder(tmp_path)


def test_a_message_names_one_cure(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    put(run, *FILES)
    (tmp_path / "other" / FILES[0]).mkdir(parents=True)
    for folder, start in ((run, f"{run} holds a training run already; use --resume"),
                          (tmp_path / "other", f"{tmp_path / 'other' / FILES[0]} is a folder; choose another one")):
        with pytest.raises(OutputError) as raised, claimed_folder(folder, overwrite=False, resume=False):
            pass
        assert str(raised.value).startswith(start) and "cannot be written" not in str(raised.value)


@pytest.mark.parametrize("resume", [False, True])
def test_one_run_at_a_time(tmp_path: Path, resume: bool) -> None:
    for _ in range(2):  # and again once it has ended
        with claimed_folder(tmp_path / "run", overwrite=True, resume=False):
            (tmp_path / "run" / ".state.pth.123.tmp").write_bytes(b"being written")
            with pytest.raises(OutputError, match="another run is writing to .*run; wait until it ends"):
                with claimed_folder(tmp_path / "run", overwrite=True, resume=resume):
                    pass
            assert (tmp_path / "run" / ".state.pth.123.tmp").exists()


@pytest.mark.parametrize(("names", "cure"), [
    (FILES, "use --resume to go on with it, --overwrite to lose it, or another folder"),
    (["state.pth"], "use --resume"),
    (["log.jsonl"], r"use --overwrite to lose it \(it was ended before it was first saved"),
    (["model.pth"], "use --overwrite to lose it")])
def test_an_earlier_run_is_not_lost_unasked(tmp_path: Path, names: list[str], cure: str) -> None:
    earlier = put(tmp_path, *names)
    with pytest.raises(OutputError, match=f"holds a training run already; {cure}"):
        with claimed_folder(tmp_path, overwrite=False, resume=False):
            pass
    with claimed_folder(tmp_path, overwrite=False, resume=True):
        pass
    assert contents(tmp_path) == earlier


@pytest.mark.parametrize("name", FILES)
def test_what_the_run_reads_is_never_lost(tmp_path: Path, name: str) -> None:
    earlier = put(tmp_path, *FILES)
    (tmp_path / "link").symlink_to(tmp_path / name)
    for read in (name, "link"):
        with pytest.raises(InputError, match=f"{read} is an input of this run and would be replaced; use another"):
            with claimed_folder(tmp_path, overwrite=True, resume=False, inputs=[tmp_path / "no", tmp_path / read]):
                pass
    (tmp_path / "link").unlink()
    assert contents(tmp_path) == earlier


def test_a_folder_in_the_place_of_a_file_costs_no_earlier_run(tmp_path: Path) -> None:
    earlier = put(tmp_path, "state.pth")
    (tmp_path / "log.jsonl").mkdir()
    for resume in (False, True):
        with pytest.raises(OutputError, match=r"log\.jsonl is a folder; choose another one for the run"):
            with claimed_folder(tmp_path, overwrite=True, resume=resume):
                pass
    assert contents(tmp_path) == earlier


def test_errors_of_the_run_are_its_own(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), claimed_folder(tmp_path, overwrite=False, resume=False):
        raise FileNotFoundError


def test_a_system_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    put(tmp_path, *FILES)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(OutputError, match="cannot be written: Permission denied; choose another folder"):
        clear_folder(tmp_path)
