"""Masks encoded by another process are those encoded here, whatever becomes of the process."""
from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Generator, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from results_sample import MASK_HW, frame_result
from tiny_bundles import save_pictures

from stmask_deploy.pretrained import demo_clip
from stmask_deploy.runtime import mask_process, run
from stmask_deploy.runtime.frame_source import Damage, Frame
from stmask_deploy.runtime.mask_process import DEPTH, MaskProcess, crops_of
from stmask_deploy.runtime.mask_server import READY, encode_crops, serve
from stmask_deploy.runtime.model import Model, load
from stmask_deploy.runtime.result import FrameResult
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


def segmentations(index: int) -> list[Any]:
    return list(tracked(index).result.segmentations)


@pytest.fixture
def process() -> Iterator[MaskProcess]:
    with MaskProcess() as process:
        assert process._is_ready.wait(WAIT_S)
        yield process


@pytest.fixture
def encoded_here(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Indices of the frames with objects whose masks are encoded by this process."""
    indices: list[int] = []
    patches = FrameResult.patches.func

    def noted(self: FrameResult) -> Any:
        nonlocal indices
        indices += [self.index] * bool(len(self))
        return patches(self)

    monkeypatch.setattr(FrameResult.patches, "func", noted)
    return indices


def test_the_process_gives_what_would_be_made_here(process: MaskProcess, encoded_here: list[int]) -> None:
    found = [(one.frame.index, list(one.result.segmentations)) for one in process.ahead(frames(20))]
    assert not encoded_here
    assert found == [(index, segmentations(index)) for index in range(20)]


def test_no_more_frames_are_read_ahead_than_said(process: MaskProcess) -> None:
    read: list[int] = []

    def noted() -> Generator[TrackedFrame, None, None]:
        for index in range(20):
            read.append(index)
            yield tracked(index)

    for number, one in enumerate(process.ahead(noted())):
        assert one.frame.index == number and len(read) == min(number + 1 + DEPTH, 20)


def test_until_the_process_is_ready_masks_are_encoded_here(process: MaskProcess, encoded_here: list[int]) -> None:
    process._is_ready.clear()
    found = [list(one.result.segmentations) for one in process.ahead(frames(6))]
    assert encoded_here == [1, 2, 3, 5]  # the others have no objects
    assert found == list(map(segmentations, range(6)))


def test_a_process_that_ends_changes_nothing(process: MaskProcess, encoded_here: list[int]) -> None:
    assert process._process is not None
    found = []
    for one in process.ahead(frames(60)):
        if one.frame.index == 20:
            process._process.kill()
            process._process.wait()
        found.append(list(one.result.segmentations))
    assert 59 in encoded_here and 3 not in encoded_here
    assert found == list(map(segmentations, range(60)))


def test_ctrl_c_is_left_to_the_run(process: MaskProcess, encoded_here: list[int]) -> None:
    assert process._process is not None
    found = []
    for one in process.ahead(frames(30)):
        if one.frame.index == 10:
            process._process.send_signal(signal.SIGINT)
        found.append(list(one.result.segmentations))
    assert not encoded_here and process._process.poll() is None
    assert found == list(map(segmentations, range(30)))


def test_a_process_that_stands_still_changes_nothing(process: MaskProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_process, "PATIENCE_S", 0.2)
    assert process._process is not None
    found = []
    for one in process.ahead(frames(30)):
        if one.frame.index == 10:
            process._process.send_signal(signal.SIGSTOP)
        found.append(list(one.result.segmentations))
    assert found == list(map(segmentations, range(30)))
    assert process._process.poll() == -signal.SIGKILL


def test_a_process_that_does_not_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_process, "PATIENCE_S", 0.2)
    with MaskProcess() as process:
        assert process._process is not None and process._is_ready.wait(WAIT_S)
        process._process.send_signal(signal.SIGSTOP)
    assert process._process.poll() == -signal.SIGKILL


def test_an_interrupt_does_not_wait_for_frames_in_hand(process: MaskProcess) -> None:
    def interrupted() -> Generator[TrackedFrame, None, None]:
        yield from frames(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        next(process.ahead(interrupted()))


@pytest.mark.parametrize("executable", ["/does/not/exist", "/bin/false", None])
def test_a_process_that_does_not_start_changes_nothing(executable: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mask_process.sys, "executable", executable)
    with MaskProcess() as process:
        found = [list(one.result.segmentations) for one in process.ahead(frames(6))]
    assert found == list(map(segmentations, range(6)))


def test_answers_to_frames_that_were_left_behind_are_not_taken_for_others(process: MaskProcess) -> None:
    for start in range(3):
        ahead = process.ahead(tracked(index) for index in range(start, 40))  # type: ignore[arg-type]
        assert list(next(ahead).result.segmentations) == segmentations(start)
        ahead.close()
    assert [list(one.result.segmentations) for one in process.ahead(frames(9))] == list(map(segmentations, range(9)))


def test_an_exception_comes_behind_the_frames_before_it(process: MaskProcess) -> None:
    def failing() -> Generator[TrackedFrame, None, None]:
        yield from frames(7)
        raise RuntimeError("the graph failed")

    seen = []
    with pytest.raises(RuntimeError, match="the graph failed"):
        for one in process.ahead(failing()):
            seen.append(one.frame.index)
    assert seen == list(range(7))


def test_the_frames_are_closed_with_it(process: MaskProcess) -> None:
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
    with MaskProcess() as process:
        assert process._process is not None and process._is_ready.wait(WAIT_S)
        pid = process._process.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@settings(max_examples=200, deadline=None)
@given(arrays(np.float32, st.tuples(st.integers(0, 3), st.integers(1, 6), st.integers(1, 7)),
              elements=st.sampled_from([0, 0.25, 0.5, 0.75, 1])))
def test_crops_hold_what_is_set_and_its_surroundings(masks: np.ndarray) -> None:
    for mask, crop in zip(masks, crops_of(masks), strict=True):
        rows, columns = np.nonzero(mask > 0.5)
        expected = [0, 0, 0, 0]
        if len(rows):
            expected = [max(rows.min() - 1, 0), min(rows.max() + 2, mask.shape[0]),
                        max(columns.min() - 1, 0), min(columns.max() + 2, mask.shape[1])]
        assert crop == expected


def test_what_lies_outside_the_crop_makes_no_difference() -> None:
    rng = np.random.default_rng(0)
    result = frame_result([(0.5, 0.5, 0.3)] * 12)
    noisy = np.clip(result.soft_masks + rng.uniform(-0.45, 0.45, (12, *MASK_HW)), 0, 1).astype(np.float32)
    noisy[6:, 20:] = 0  # masks at the upper edge
    result = dataclasses.replace(result, soft_masks=noisy)
    crops = crops_of(noisy)
    cells = np.concatenate([mask[y1:y2, x1:x2].ravel() for mask, (y1, y2, x1, x2) in zip(noisy, crops, strict=True)])
    request = {"geometry": dataclasses.astuple(result.geometry), "mask_hw": MASK_HW, "crops": crops}
    assert encode_crops(json.loads(json.dumps(request)), cells) == [one["counts"] for one in result.segmentations]


def test_a_server_without_requests_says_that_it_is_ready_and_ends() -> None:
    answers = BytesIO()
    serve(BytesIO(), answers)
    assert answers.getvalue() == READY


def files_of(model: Model, source: Path, folder: Path, **options: Any) -> dict[str, bytes]:
    with open_source(source) as opened:
        summary = run_video(model, opened, folder, draw=False, max_frames=30, **options)
    return {path.name: path.read_bytes() for path in summary.files}


def test_a_run_writes_the_same_files(process: MaskProcess, encoded_here: list[int], tmp_path: Path,
                                     monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(threads=1)
    expected = files_of(model, demo_clip(), tmp_path / "plain", mode="latency")
    assert len(set(encoded_here)) > 20
    encoded_here.clear()
    monkeypatch.setattr(Model, "leaves_cores", True)
    assert files_of(model, demo_clip(), tmp_path / "helped", mask_process=process) == expected
    assert not encoded_here
    started: list[MaskProcess] = []
    monkeypatch.setattr(run, "MaskProcess", lambda: started.append(MaskProcess()) or started[-1])
    assert files_of(model, demo_clip(), tmp_path / "own") == expected
    assert len(started) == 1 and started[0]._process is not None and started[0]._process.poll() == 0


@pytest.mark.parametrize(("leaves_cores", "options"), [(False, {}), (True, {"mode": "latency"}),
                                                       (True, {"draw": True})])
def test_no_process_is_started_where_it_does_not_help(leaves_cores: bool, options: dict[str, Any], bundle: Path,
                                                      tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Model, "leaves_cores", leaves_cores)
    monkeypatch.setattr(run, "MaskProcess", None)  # would be called
    with open_source(save_pictures(tmp_path / "clip", [100, 110])) as source:
        assert run_video(load(bundle), source, tmp_path / "out", **{"draw": False, **options}).frames == 2


def test_a_reader_that_dies_leaves_no_process_behind(tmp_path: Path) -> None:
    import subprocess
    import sys

    program = ("from stmask_deploy.runtime.mask_process import MaskProcess; import os; p = MaskProcess().__enter__();"
               "p._is_ready.wait(60); print(p._process.pid, flush=True); os._exit(9)")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=WAIT_S, cwd=tmp_path)
    pid, end = int(done.stdout), time.monotonic() + 10
    while time.monotonic() < end and Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text():
        time.sleep(0.05)
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text()


def test_a_working_directory_that_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr("sys.path", ["", *sys.path])
    (tmp_path / "here").rmdir()
    with MaskProcess() as process:
        found = [list(one.result.segmentations) for one in process.ahead(frames(4))]
    assert found == list(map(segmentations, range(4)))
