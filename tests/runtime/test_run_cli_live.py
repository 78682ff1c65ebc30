"""`stmask-run` on network streams."""
from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import av
import pytest
from live_servers import MjpegServer, paced
from run_commands import call
from without_torch import RUN_WITHOUT_TORCH

from stmask_deploy.ending_signals import ENDING_SIGNALS
from stmask_deploy.runtime.frame_source import Damage
from stmask_deploy.runtime.messages import tell_summary, told_warnings
from stmask_deploy.runtime.results_jsonl import read_results
from stmask_deploy.runtime.run import RunSummary


def with_password(address: str) -> str:
    return address.replace("//", "//me:secret@") + "?key=secret"


@pytest.mark.parametrize("mode", ["auto", "throughput"])
def test_a_stream_until_enough_frames(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.chdir(tmp_path)
    with MjpegServer(paced(range(10000))) as server:
        result = call(with_password(server.address), "-m", bundle, "--max-frames", 5, "--mode", mode)
    assert result.exit_code == 0, result.output
    assert "bounded memory" in result.stderr and "no results.json for a live source" in result.stderr
    folder = Path("runs") / f"127.0.0.1-{server.server_port}-live.mjpg"
    assert sorted(path.name for path in folder.iterdir()) == ["results.jsonl", "video.mp4"]
    results = read_results(folder / "results.jsonl")
    assert results.header.source == server.address and len(results.frames) == 5
    assert "secret" not in result.output + result.stderr + (folder / "results.jsonl").read_text()


@pytest.mark.parametrize(("number", "mode"), [
    (signal.SIGINT, "auto"), *((number, "throughput") for number in ENDING_SIGNALS)])
def test_an_interrupt_while_the_stream_is_away(bundle: Path, tmp_path: Path, number: int, mode: str) -> None:
    """Nothing comes that the run could stop after."""
    results = tmp_path / "out" / "results.jsonl"
    with MjpegServer(paced(range(10000)), paced([])) as server:
        command = [sys.executable, "-c", RUN_WITHOUT_TORCH, with_password(server.address), "-m", bundle, "-o",
                   tmp_path / "out", "--mode", mode]
        with open(tmp_path / "stderr", "w") as messages:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=messages, text=True)
        deadline = time.monotonic() + 60
        while not (results.exists() and results.read_bytes().count(b"\n") > 3):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
    while "is lost; " not in (tmp_path / "stderr").read_text():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    size = -1
    while size != (size := results.stat().st_size):  # until no frame is left in the connection
        time.sleep(0.5)
    process.send_signal(number)
    stdout, _ = process.communicate(timeout=30)
    stderr = (tmp_path / "stderr").read_text()
    assert process.returncode == 130, stderr
    assert "interrupted: " in stderr and "Traceback" not in stderr and "secret" not in stdout + stderr
    assert f"\nwarning: {server.address} is lost; connecting again\n" in stderr
    found = read_results(results)
    assert found.end is not None and found.end["interrupted"] is True
    assert found.end["damage"]["lost_connections"] == 1 and found.end["frames"] == len(found.frames)
    with av.open(str(tmp_path / "out" / "video.mp4")) as video:
        assert len(list(video.decode(video=0))) == len(found.frames)


def test_an_interrupt_while_one_of_several_is_opened(bundle: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute, MjpegServer(paced(range(10000))) as server:
        command = [sys.executable, "-c", RUN_WITHOUT_TORCH, server.address,
                   f"rtsp://127.0.0.1:{mute.getsockname()[1]}/live", "-m", bundle, "-o", tmp_path, "--parallel", "2"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        mute.settimeout(60)
        with mute.accept()[0]:
            process.send_signal(signal.SIGINT)
            start_s = time.monotonic()
            stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in stderr, stderr
    assert time.monotonic() - start_s < 10  # connecting would take 15 s
    [results] = tmp_path.glob("*/results.jsonl")
    end = read_results(results).end
    assert end is not None and end["interrupted"] is True


def test_streams_at_the_same_time(bundle: Path, tmp_path: Path) -> None:
    with MjpegServer(paced(range(10000)), paced(range(10000))) as server:
        address = with_password(server.address)
        gone = "rtsp://me:secret@127.0.0.1:1/gone"
        result = call(address, gone, address, "-m", bundle, "-o", tmp_path, "--parallel", 3, "--max-frames", 4,
                      "--no-video")
    assert result.exit_code == 2
    assert "error: rtsp://127.0.0.1:1/gone cannot be opened" in result.stderr
    assert "1 of 3 sources failed: rtsp://127.0.0.1:1/gone" in result.stderr
    assert result.stdout.count(f"{server.address}: 4 frames") == 2 and "secret" not in result.stdout + result.stderr
    found = sorted(path.parent.name for path in tmp_path.glob("*/results.jsonl"))
    name = f"127.0.0.1-{server.server_port}-live.mjpg"
    assert found == [name, f"{name}-2"]
    assert all(len(read_results(tmp_path / folder / "results.jsonl").frames) == 4 for folder in found)


def test_skipped_frames_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    for skipped, told in ((0, "9 frames in 2.0 s"), (21, "9 frames, 21 skipped in 2.0 s")):
        damage = Damage(frames=9, skipped_frames=skipped)
        tell_summary(RunSummary(9, 2.0, 1, (), damage, lost_candidates=0, is_interrupted=False))
        assert capsys.readouterr() == (f"{told} (4.50 frames/s), 1 identity\n", "")


@pytest.mark.parametrize(("is_terminal", "told"), [(False, "warning: camera is lost\n"),
                                                   (True, "\nwarning: camera is lost\n")])
def test_warnings_have_lines_of_their_own(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
                                          is_terminal: bool, told: str) -> None:
    """On a terminal the progress line has no end."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal)
    logger = logging.getLogger("stmask_deploy.runtime.stream_source")
    with told_warnings():
        logger.info("connecting")
        logger.warning("%s is lost", "camera")
    logger.warning("afterwards")
    assert capsys.readouterr().err == told


def test_warnings_that_nobody_reads_end_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("stmask_deploy.runtime.messages.click.echo", gone)
    with told_warnings():
        logging.getLogger("stmask_deploy").warning("lost")
