from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stmask_deploy.spawning import spawning

SCRIPT = """
import multiprocessing
from stmask_deploy.spawning import spawning

def answer(queue):
    queue.put("here")

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with spawning():
        queue = context.SimpleQueue()
        process = context.Process(target=answer, args=(queue,))
        process.start()
    print(queue.get())
    process.join()
"""


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 cannot leave the working directory out")
def test_files_of_the_working_directory_are_not_imported(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "spawn.py").write_text(SCRIPT)
    (tmp_path / "here").mkdir()
    for name in ("types", "struct", "signal", "socket", "pickle", "random"):
        (tmp_path / "here" / f"{name}.py").write_text("raise RuntimeError('imported')")
    done = subprocess.run([sys.executable, tmp_path / "scripts" / "spawn.py"], cwd=tmp_path / "here", text=True,
                          capture_output=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("here\n", "", 0)


@pytest.mark.parametrize("before", [None, "", "1"])
def test_everything_is_as_before_afterwards(monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    if before is not None:
        monkeypatch.setenv("PYTHONSAFEPATH", before)
    masked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with pytest.raises(ZeroDivisionError), spawning():
        assert os.environ["PYTHONSAFEPATH"] == "1" and signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        raise ZeroDivisionError
    assert os.environ.get("PYTHONSAFEPATH") == before and signal.pthread_sigmask(signal.SIG_BLOCK, ()) == masked
