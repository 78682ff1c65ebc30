"""A folder's lock is one command's; its behaviour in runs is tested where these are."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
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


FORKS = """
import os, signal, sys, time
from pathlib import Path
from stmask_deploy.folder_lock import locked_folder
with locked_folder(Path(sys.argv[1])):
    started, start = os.pipe()
    child = os.fork()
    if not child:
        os.write(start, b"x")
        time.sleep(100)
        os._exit(0)
    os.read(started, 1)  # on a busy machine the child begins much later
    print(child, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_killed_command_leaves_none_to_its_workers(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", FORKS, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        process.wait(60)
        try:
            with locked_folder(tmp_path):
                assert Path(f"/proc/{child}").exists()  # it lives, and holds nothing
        finally:
            os.kill(child, signal.SIGKILL)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_that_leaves_the_block_takes_nothing(tmp_path: Path) -> None:
    child = -1
    try:
        with locked_folder(tmp_path):
            child = os.fork()
            if child:
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
                with pytest.raises(OutputError), locked_folder(tmp_path):
                    pass
    finally:
        if not child:
            os._exit(1 if sys.exc_info()[1] else 0)
