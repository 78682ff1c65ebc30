"""Ctrl-C between frames."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from media import pictures, write_video

from stmask_deploy.ending_signals import ENDING_SIGNALS
from stmask_deploy.runtime.interrupt import InterruptFlag
from stmask_deploy.runtime.results_jsonl import read_results


@pytest.fixture(autouse=True)
def usual_handler(interrupts_as_before: None) -> None:
    """A background job starts with Ctrl-C ignored; here it shall mean what it means at a terminal."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_is_noted_the_second_interrupts() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), InterruptFlag() as interrupt:
        assert not interrupt.is_set
        press()
        assert interrupt.is_set
        press()
    assert signal.getsignal(signal.SIGINT) is before


def test_who_sees_the_first_may_press_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread, or another process that is told: until the handler is put back, a second one would be lost."""
    was_set: list[bool] = []
    set_handler = signal.signal
    with InterruptFlag() as interrupt:
        monkeypatch.setattr(signal, "signal", lambda *args: (was_set.append(interrupt.is_set), set_handler(*args))[1])
        press()
        assert interrupt.is_set and was_set and not any(was_set)


def test_another_signal_while_handlers_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    set_handler, others = signal.signal, [signal.SIGTERM]

    def interrupted(*args: Any) -> Any:
        before = set_handler(*args)
        if others:
            interrupt._note(others.pop(), None)
        return before

    with InterruptFlag() as interrupt:
        monkeypatch.setattr(signal, "signal", interrupted)
        press()
        assert interrupt.is_set and not others


def test_the_handler_is_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with InterruptFlag():
        assert signal.getsignal(signal.SIGINT) is not before
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("number", ENDING_SIGNALS)
def test_other_signals_are_noted_unless_they_have_a_handler(number: int) -> None:
    assert signal.getsignal(number) == signal.SIG_DFL
    with InterruptFlag() as interrupt:
        os.kill(os.getpid(), number)
        assert interrupt.is_set
        for second in ENDING_SIGNALS:  # a second SIGTERM ends the process, a second SIGHUP changes nothing
            assert (signal.getsignal(second) == signal.SIG_DFL) is (second == signal.SIGTERM)
    assert signal.getsignal(number) == signal.SIG_DFL

    def own(_signal: int, _frame: object) -> None: ...

    for handler in (own, signal.SIG_IGN):  # the latter under nohup
        signal.signal(number, handler)
        try:
            with InterruptFlag() as interrupt:
                os.kill(os.getpid(), number)
                assert not interrupt.is_set
                assert signal.getsignal(number) is handler
            assert signal.getsignal(number) is handler
        finally:
            signal.signal(number, signal.SIG_DFL)


HANGING = """
import os, signal, sys, time
from stmask_deploy.runtime.cli import main
from stmask_deploy.runtime.interrupt import InterruptFlag
from stmask_deploy.runtime.video_source import VideoSource
frames, note = VideoSource._frames, InterruptFlag._note
def tell(word):
    os.write(1, word.encode() + bytes([10]))
def hang(source):
    yield next(frames(source))
    tell("hanging")
    time.sleep(60)
def tell_note(*args):
    note(*args)
    tell("noted")
VideoSource._frames, InterruptFlag._note = hang, tell_note
signal.signal(signal.SIGINT, signal.default_int_handler)
main()
"""


SLOW = """
import os, signal, time
from stmask_deploy.runtime.cli import main
from stmask_deploy.runtime.run_writer import RunWriter
write, names = RunWriter.write, iter(["first", "second", "third", "fourth", "fifth"])
def slow(*args):
    write(*args)
    os.write(1, next(names).encode() + b" frame" + bytes([10]))
    time.sleep(1)
RunWriter.write = slow
{ignored}
main()
"""


def test_the_second_ends_a_run_whose_source_hangs(bundle: Path, tmp_path: Path) -> None:
    clip = write_video(tmp_path / "clip.mp4", pictures(5))
    command = [sys.executable, "-c", HANGING, clip, "-m", bundle, "-o", tmp_path / "out", "--mode", "throughput"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for stage in ("hanging", "noted"):
            assert stage in (line.strip() for line in process.stdout)
            time.sleep(0.2)  # until the main thread waits
            process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=20)
    assert process.returncode == 130
    assert told.splitlines()[1:] == ["interrupted"]
    assert read_results(tmp_path / "out" / "results.jsonl").end is None  # cut short, and readable


def test_other_threads_are_left_alone() -> None:
    noted: list[bool] = []

    def work() -> None:
        with InterruptFlag() as interrupt:
            noted.append(interrupt.is_set)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert noted == [False]


def test_where_ctrl_c_is_ignored_it_stays_so() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with InterruptFlag() as interrupt:
        press()
        assert not interrupt.is_set
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_asked_to_stop_completes_its_files(bundle: Path, tmp_path: Path, number: int) -> None:
    """Also one in the background of a script, where Ctrl-C is ignored and SIGTERM stops it."""
    clip = write_video(tmp_path / "clip.mp4", pictures(5))
    program = SLOW.format(ignored="signal.signal(signal.SIGINT, signal.SIG_IGN)" if number == signal.SIGTERM else
                          "signal.signal(signal.SIGINT, signal.default_int_handler)")
    command = [sys.executable, "-c", program, clip, "-m", bundle, "-o", tmp_path / "out"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "second frame" in (line.strip() for line in process.stdout)
        if number == signal.SIGTERM:
            process.send_signal(signal.SIGINT)
            assert "third frame" in (line.strip() for line in process.stdout)
        process.send_signal(number)
        process.stdout.read()
    assert process.returncode == 130
    results = read_results(tmp_path / "out" / "results.jsonl")
    assert results.end is not None and results.end["interrupted"] and 1 <= len(results.frames) < 5
    assert (tmp_path / "out" / "video.mp4").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal")
@pytest.mark.parametrize("first", ENDING_SIGNALS)
def test_a_second_hangup_changes_nothing(bundle: Path, tmp_path: Path, first: int) -> None:
    """The shell sends one to its jobs, and the system another when the shell has ended."""
    clip = write_video(tmp_path / "clip.mp4", pictures(5))
    command = [sys.executable, "-c", SLOW.format(ignored=""), clip, "-m", bundle, "-o", tmp_path / "out"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "second frame" in (line.strip() for line in process.stdout)
        for number in (first, signal.SIGHUP, signal.SIGHUP):
            process.send_signal(number)
            time.sleep(0.1)
        process.stdout.read()
    assert process.returncode == 130
    results = read_results(tmp_path / "out" / "results.jsonl")
    assert results.end is not None and results.end["interrupted"] and (tmp_path / "out" / "video.mp4").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
@pytest.mark.parametrize("options", [[], ["--no-video"]])
def test_a_run_whose_terminal_is_closed_completes_its_files(bundle: Path, tmp_path: Path, options: list[str]) -> None:
    import pty

    clip = write_video(tmp_path / "clip.mp4", pictures(5))
    program = SLOW.format(ignored="signal.signal(signal.SIGHUP, signal.SIG_DFL)")
    command = [sys.executable, "-c", program, str(clip), "-m", str(bundle), "-o", str(tmp_path / "out"), *options]
    child, terminal = pty.fork()
    if child == 0:
        os.execv(sys.executable, command)
    with os.fdopen(terminal, "rb") as screen:
        shown = b""
        while b"second frame" not in shown:
            shown += os.read(screen.fileno(), 1000)
    _, status = os.waitpid(child, 0)
    assert not os.WIFSIGNALED(status)  # it ended by itself, with messages that nobody could read
    results = read_results(tmp_path / "out" / "results.jsonl")
    assert results.end is not None and results.end["interrupted"] and 1 <= len(results.frames) < 5
    assert (tmp_path / "out" / "video.mp4").exists() is not bool(options)
