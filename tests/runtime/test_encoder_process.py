"""Results encoded by another process are those encoded here, whatever becomes of the process."""
from __future__ import annotations

import os
import pickle
import signal
import sys
import time
from collections.abc import Generator, Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from results_sample import frame_result
from tiny_bundles import save_pictures

from stmask_deploy.pretrained import demo_clip
from stmask_deploy.runtime import encoder_process, run
from stmask_deploy.runtime.encoder_process import DEPTH, EncoderProcess
from stmask_deploy.runtime.encoder_server import READY, serve
from stmask_deploy.runtime.frame_source import Damage, Frame
from stmask_deploy.runtime.model import Model, load
from stmask_deploy.runtime.result import FrameResult
from stmask_deploy.runtime.results_jsonl import frame_line
from stmask_deploy.runtime.run import run_video
from stmask_deploy.runtime.sources import open_source
from stmask_deploy.runtime.timing import FrameTimes
from stmask_deploy.runtime.tracking import TrackedFrame

WAIT_S = 60


def tracked(index: int) -> TrackedFrame:
    """Frames with 0 to 3 objects, which move."""
    discs = [(0.2 + 0.01 * index, 0.4, 0.2), (0.7, 0.6, 0.1 + 0.005 * index), (0.5, 0.5, 0)][:index % 4]
    frame = Frame(index, index / 30, np.zeros((1, 1, 3), np.uint8))
    return TrackedFrame(frame, frame_result(discs, index=index), Damage(index + 1), 0, FrameTimes())


def frames(count: int) -> Generator[TrackedFrame, None, None]:
    yield from map(tracked, range(count))


def line(index: int) -> bytes:
    return frame_line(tracked(index).result)


def written(one: TrackedFrame) -> bytes:
    """What a run writes of a frame."""
    return frame_line(one.result) if one.line is None else one.line


@pytest.fixture
def process() -> Iterator[EncoderProcess]:
    with EncoderProcess() as process:
        assert process._is_ready.wait(WAIT_S)
        yield process


@pytest.fixture
def encoded_here(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Indices of the frames with objects that are encoded by this process."""
    indices: list[int] = []
    patches = FrameResult.patches.func

    def noted(self: FrameResult) -> Any:
        nonlocal indices
        indices += [self.index] * bool(len(self))
        return patches(self)

    monkeypatch.setattr(FrameResult.patches, "func", noted)
    return indices


def test_the_process_gives_what_would_be_made_here(process: EncoderProcess, encoded_here: list[int]) -> None:
    found = [(one.frame.index, one.line) for one in process.ahead(frames(20))]
    assert not encoded_here
    assert found == [(index, line(index)) for index in range(20)]


def test_no_more_frames_are_read_ahead_than_said(process: EncoderProcess) -> None:
    read: list[int] = []

    def noted() -> Generator[TrackedFrame, None, None]:
        for index in range(20):
            read.append(index)
            yield tracked(index)

    for number, one in enumerate(process.ahead(noted())):
        assert one.frame.index == number and len(read) == min(number + 1 + DEPTH, 20)


def test_until_the_process_is_ready_results_are_encoded_here(process: EncoderProcess, encoded_here: list[int]) -> None:
    process._is_ready.clear()
    found = [written(one) for one in process.ahead(frames(6))]
    assert encoded_here == [1, 2, 3, 5]  # the others have no objects
    assert found == list(map(line, range(6)))


def signalled(process: EncoderProcess, count: int, number: int) -> list[bytes]:
    """What is written of `count` frames if the process gets a signal in the middle."""
    assert process._process is not None
    found = []
    for one in process.ahead(frames(count)):
        if one.frame.index == count // 3:
            process._process.send_signal(number)
        found.append(written(one))
    return found


def test_a_process_that_ends_changes_nothing(process: EncoderProcess, encoded_here: list[int]) -> None:
    found = signalled(process, 60, signal.SIGKILL)
    assert 59 in encoded_here and 3 not in encoded_here
    assert found == list(map(line, range(60)))


def test_ctrl_c_is_left_to_the_run(process: EncoderProcess, encoded_here: list[int]) -> None:
    found = signalled(process, 30, signal.SIGINT)
    assert process._process is not None and process._process.poll() is None and not encoded_here
    assert found == list(map(line, range(30)))


def test_a_process_that_stands_still_changes_nothing(process: EncoderProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_process, "PATIENCE_S", 0.2)
    assert signalled(process, 30, signal.SIGSTOP) == list(map(line, range(30)))
    assert process._process is not None and process._process.poll() == -signal.SIGKILL


def test_a_process_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_process, "PATIENCE_S", 0.2)
    with EncoderProcess() as process:
        assert process._process is not None and process._is_ready.wait(WAIT_S)
        process._process.send_signal(signal.SIGSTOP)
    assert process._process.poll() == -signal.SIGKILL


def test_an_interrupt_does_not_wait_for_frames_in_hand(process: EncoderProcess) -> None:
    def interrupted() -> Generator[TrackedFrame, None, None]:
        yield from frames(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(process.ahead(interrupted()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_forked_meanwhile_does_not_hold_it_up() -> None:
    with EncoderProcess() as process:
        assert process._process is not None and process._is_ready.wait(WAIT_S)
        child = os.fork()
        if not child:  # it has copies of the pipe's ends
            time.sleep(WAIT_S)
            os._exit(0)
        start = time.monotonic()
    try:
        assert time.monotonic() - start < encoder_process.PATIENCE_S and process._process.returncode == 0
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_paths_that_python_does_not_search_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, Path("not", "text")])
    with EncoderProcess() as process:
        assert process._process is not None and process._is_ready.wait(WAIT_S)


@pytest.mark.parametrize(("executable", "is_frozen"), [("/opt/app/python-app", True), ("/bin/uwsgi_python3", False)])
def test_no_other_program_is_started(executable: str, is_frozen: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    monkeypatch.setattr(sys, "frozen", is_frozen, raising=False)
    monkeypatch.setattr(encoder_process.subprocess, "Popen", lambda *_, **__: pytest.fail("started"))
    with EncoderProcess() as process:
        assert [written(one) for one in process.ahead(frames(6))] == list(map(line, range(6)))


@pytest.mark.parametrize("executable", ["/does/not/exist/python", "/bin/false", None])
def test_a_process_that_does_not_start_changes_nothing(executable: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_process.sys, "executable", executable)
    with EncoderProcess() as process:
        found = [written(one) for one in process.ahead(frames(6))]
    assert found == list(map(line, range(6)))


def test_answers_to_frames_that_were_left_behind_are_not_taken_for_others(process: EncoderProcess) -> None:
    for start in range(3):
        ahead = process.ahead(tracked(index) for index in range(start, 40))  # type: ignore[arg-type]
        assert written(next(ahead)) == line(start)
        ahead.close()
    assert [written(one) for one in process.ahead(frames(9))] == list(map(line, range(9)))


def test_an_exception_comes_behind_the_frames_before_it(process: EncoderProcess) -> None:
    def failing() -> Generator[TrackedFrame, None, None]:
        yield from frames(7)
        raise RuntimeError("the graph failed")

    seen = []
    with pytest.raises(RuntimeError, match="the graph failed"):
        for one in process.ahead(failing()):
            seen.append(one.frame.index)
    assert seen == list(range(7))


def test_the_frames_are_closed_with_it(process: EncoderProcess) -> None:
    closed: list[bool] = []

    def noted() -> Generator[TrackedFrame, None, None]:
        try:
            yield from frames(20)
        finally:
            closed.append(True)

    source = noted()  # held here too, so that it is not closed for want of readers
    ahead = process.ahead(source)
    next(ahead)
    ahead.close()
    assert closed == [True]


def test_the_process_ends_with_its_context() -> None:
    with EncoderProcess() as process:
        assert process._process is not None and process._is_ready.wait(WAIT_S)
        pid = process._process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_cannot_be_encoded_is_left_to_this_process(process: EncoderProcess, value: float) -> None:
    def with_a_bad_box() -> Generator[TrackedFrame, None, None]:
        for one in frames(4):
            one.result.boxes_px[:one.frame.index == 2] = value
            yield one

    assert [one.line for one in process.ahead(with_a_bad_box())] == [line(0), line(1), None, line(3)]


def test_an_answer_that_is_cut_off_is_none(tmp_path: Path) -> None:
    whole = pickle.dumps((1, line(1)))
    for size in (0, 1, len(whole) // 2, len(whole) - 1):
        process = EncoderProcess()
        (tmp_path / "answers").write_bytes(READY + whole + whole[:size])
        with (tmp_path / "answers").open("rb") as answers:
            process._read(SimpleNamespace(stdout=answers))  # type: ignore[arg-type]
        assert [process._answers.get_nowait(), process._answers.get_nowait()] == [(1, line(1)), None]


def test_a_server_without_requests_says_that_it_is_ready_and_ends() -> None:
    answers = BytesIO()
    serve(BytesIO(), answers)
    assert answers.getvalue() == READY


def files_of(model: Model, source: Path, folder: Path, **options: Any) -> dict[str, bytes]:
    with open_source(source) as opened:
        summary = run_video(model, opened, folder, draw=False, max_frames=30, **options)
    return {path.name: path.read_bytes() for path in summary.files}


def test_a_run_writes_the_same_files(process: EncoderProcess, encoded_here: list[int], tmp_path: Path,
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(threads=1)
    expected = files_of(model, demo_clip(), tmp_path / "plain", mode="latency")
    assert len(set(encoded_here)) > 20
    encoded_here.clear()
    monkeypatch.setattr(Model, "leaves_cores", True)
    assert files_of(model, demo_clip(), tmp_path / "helped", encoder_process=process) == expected
    assert not encoded_here
    started: list[EncoderProcess] = []
    monkeypatch.setattr(run, "EncoderProcess", lambda: started.append(EncoderProcess()) or started[-1])
    assert files_of(model, demo_clip(), tmp_path / "own") == expected
    assert len(started) == 1 and started[0]._process is not None and started[0]._process.poll() == 0


@pytest.mark.parametrize(("leaves_cores", "options"), [(False, {}), (True, {"mode": "latency"}),
                                                       (True, {"draw": True})])
def test_no_process_is_started_where_it_does_not_help(leaves_cores: bool, options: dict[str, Any], bundle: Path,
                                                      tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "leaves_cores", leaves_cores)
    monkeypatch.setattr(run, "EncoderProcess", None)  # would be called
    with open_source(save_pictures(tmp_path / "clip", [100, 110])) as source:
        assert run_video(load(bundle), source, tmp_path / "out", **{"draw": False, **options}).frames == 2


def test_a_reader_that_dies_leaves_no_process_behind(tmp_path: Path) -> None:
    import subprocess
    import sys

    program = ("from stmask_deploy.runtime.encoder_process import EncoderProcess as Process; import os;"
               " p = Process().__enter__();"
               "p._is_ready.wait(60); print(p._process.pid, flush=True); os._exit(9)")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=WAIT_S, cwd=tmp_path)

    def is_running(pid: int) -> bool:
        try:
            return "Z" not in Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False

    end = time.monotonic() + 10
    while is_running(int(done.stdout)):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_working_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("sys.path", ["", *sys.path])
    (tmp_path / "here").rmdir()
    with EncoderProcess() as process:
        found = [written(one) for one in process.ahead(frames(4))]
    assert found == list(map(line, range(4)))
