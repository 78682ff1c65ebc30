"""A folder's lock is one command's; its behaviour in runs is tested where these are."""
from __future__ import annotations

from pathlib import Path

import pytest

from stmask_deploy.errors import OutputError
from stmask_deploy.folder_lock import locked_folder


def test_is_held_once_at_a_time(tmp_path: Path) -> None:
    for _ in range(2):
        with locked_folder(tmp_path):
            with pytest.raises(OutputError, match="another run is writing to"), locked_folder(tmp_path):
                pass


def test_what_is_no_folder_has_none(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "missing", tmp_path / "file"):
        with locked_folder(path), locked_folder(path):
            pass
