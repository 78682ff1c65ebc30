"""`stmask-run` and Ctrl-C: files are whole, nothing is waited for twice, and nobody is left behind."""
from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import pytest
from run_commands import write_clip
from without_torch import RUN_WITHOUT_TORCH

from stmask_deploy.runtime.results_jsonl import read_results


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "long.mp4", 3000)


def test_ctrl_c_leaves_readable_results(bundle: Path, long_clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", RUN_WITHOUT_TORCH, long_clip, "-m", bundle, "-o", out],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    results = out / "results.jsonl"
    deadline = time.monotonic() + 180
    while not (results.exists() and results.read_bytes().count(b"\n") > 5) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=180)
    assert process.returncode == 130, stderr
    assert "interrupted" in stderr and "Traceback" not in stderr
    found = read_results(results)
    assert 5 <= len(found.frames) < 3000
    assert found.end is not None and found.end["interrupted"] and found.end["frames"] == len(found.frames)
    assert f"{len(found.frames)} frames" in stdout
    with av.open(str(out / "video.mp4")) as video:
        assert len(list(video.decode(video=0))) == len(found.frames)


# A run that tells where it is, so that Ctrl-C can come at a known moment.
TELLING = """
import atexit, os, threading, time
from stmask_deploy.runtime.interrupt import InterruptFlag
from stmask_deploy.runtime.run_writer import RunWriter
note, write = InterruptFlag._note, RunWriter.write
def tell(word):
    os.write(1, word.encode() + bytes([10]))
def tell_note(*args):
    note(*args)
    tell("noted")
def write_slowly(*args):
    tell("writing")
    time.sleep(0.05)
    write(*args)
def hold(*args):
    everyone.wait()  # no run is still writing its header
    tell("holding")
    while True:
        time.sleep(0.01)
InterruptFlag._note = tell_note
"""
ENDING = f"""{TELLING}
RunWriter.write = write_slowly
atexit.register(lambda: (tell("ending"), time.sleep(0.3)))
{RUN_WITHOUT_TORCH}"""


def holding(num_runs: int) -> str:
    """A run, or several, none of which ever gets past its first frame; told when all have come to it."""
    return f"{TELLING}\neveryone = threading.Barrier({num_runs})\nRunWriter.write = hold\n{RUN_WITHOUT_TORCH}"


def interrupted(code: str, *arguments: object, stages: Sequence[str]) -> tuple[int, list[str]]:
    """Run `code`, with Ctrl-C whenever it has told the next of `stages`; gives its exit code and standard error."""
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for stage in stages:
        for line in process.stdout:
            if line.strip() == stage:
                break
        process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=180)
    return process.returncode, stderr.splitlines()


@pytest.mark.parametrize("options", [("--mode", "latency"), ("--mode", "throughput"), ("--parallel", 2)])
def test_a_second_ctrl_c_waits_for_nothing(bundle: Path, long_clip: Path, tmp_path: Path,
                                           options: tuple[Any, ...]) -> None:
    clips = [long_clip] * (2 if "--parallel" in options else 1)
    code, told = interrupted(holding(len(clips)), *clips, "-m", bundle, "-o", tmp_path / "out", *options,
                             stages=["holding", "noted"])
    assert (code, told[1:]) == (130, ["interrupted"])
    results = list((tmp_path / "out").rglob("results.jsonl"))
    assert len(results) == len(clips)
    assert all(read_results(path).end is None for path in results)  # cut short, and readable


def test_ctrl_c_while_the_process_ends_is_not_heard(bundle: Path, long_clip: Path, tmp_path: Path) -> None:
    code, told = interrupted(ENDING, long_clip, "-m", bundle, "-o", tmp_path / "out", stages=["writing", "ending"])
    assert (code, told[1:]) == (130, ["interrupted: the results hold every frame up to here"])
    end = read_results(tmp_path / "out" / "results.jsonl").end
    assert end is not None and end["interrupted"] is True


def test_ctrl_c_completes_all_that_run(bundle: Path, long_clip: Path, tmp_path: Path) -> None:
    clips = [long_clip] * 3
    process = subprocess.Popen([sys.executable, "-c", RUN_WITHOUT_TORCH, *clips, "-m", bundle, "-o", tmp_path / "out",
                                "--parallel", "2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    results = [tmp_path / "out" / name / "results.jsonl" for name in ("long", "long-2")]
    deadline = time.monotonic() + 180
    while not all(path.exists() and path.read_bytes().count(b"\n") > 3 for path in results):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=180)
    assert process.returncode == 130, told
    assert told.count("interrupted: ") == 2 and "Traceback" not in told
    for path in results:
        end = read_results(path).end
        assert end is not None and end["interrupted"] is True
    assert not (tmp_path / "out" / "long-3").exists()
