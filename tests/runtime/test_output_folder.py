"""Where results go, and where they may not."""
from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from stmask_deploy.errors import OutputError
from stmask_deploy.runtime.output_folder import OutputFolder, folder_name


def test_a_new_folder_is_made_only_when_it_is_needed(tmp_path: Path) -> None:
    output = OutputFolder(tmp_path / "a" / "b")
    output.check(overwrite=False)
    assert not (tmp_path / "a").exists()
    output.prepare(overwrite=False)
    assert output.path.is_dir() and output.existing() == ()


@pytest.mark.parametrize("name", ["results.jsonl", "results.json", "video.mp4", "video.part.mp4", "frame.png"])
def test_results_are_replaced_only_when_asked(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    (tmp_path / "notes.txt").write_text("mine")
    output = OutputFolder(tmp_path)
    for step in (output.check, output.prepare):
        with pytest.raises(OutputError, match=f"holds results already \\({name}\\); use --overwrite"):
            step(overwrite=False)
    output.check(overwrite=True)
    assert output.existing() == (tmp_path / name,)
    output.prepare(overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


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
        OutputFolder(tmp_path / "new").prepare(overwrite=False)


@pytest.mark.parametrize(("kind", "name", "folder"), [
    ("video", "street.v2.mp4", "street.v2"), ("image", "cat.png", "cat"), ("folder", "clip.v2", "clip.v2"),
    ("camera", "camera 0", "camera-0"),
])
def test_folder_name(kind: str, name: str, folder: str) -> None:
    assert folder_name(SimpleNamespace(kind=kind, name=name)) == folder  # type: ignore[arg-type]
