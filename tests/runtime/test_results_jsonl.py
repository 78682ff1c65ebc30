from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask
from results_sample import frame_result

from stmask_deploy.errors import InputError, OutputError, StmaskError
from stmask_deploy.runtime import results_jsonl
from stmask_deploy.runtime.frame_source import Damage
from stmask_deploy.runtime.results_jsonl import ResultsHeader, ResultsWriter, frame_line, frame_record, read_results

HEADER = ResultsHeader("clip é.mp4", 640, 360, 29.97, {"export_id": "abc"}, {"nms": "cross-class"})


def write(path: Path, num_frames: int = 3) -> Path:
    with ResultsWriter(path, HEADER) as writer:
        for index in range(num_frames):
            writer.write(frame_line(frame_result(index=index)))
        writer.finish(Damage(num_frames, packet_errors=2), interrupted=True)
    return path


def test_the_lines_are_those_of_the_format(tmp_path: Path) -> None:
    result = frame_result(index=4, ids=[3, 8], ages=[0, 2])
    with ResultsWriter(tmp_path / "r.jsonl", HEADER) as writer:
        writer.write(frame_line(result))
        writer.write(frame_line(frame_result([], index=5)))
        writer.finish(Damage(2), interrupted=False)
    header, frame, empty, end = map(json.loads, (tmp_path / "r.jsonl").read_text(encoding="utf-8").splitlines())
    assert header == {"type": "header", "schema": "stmask-results/1", "source": "clip é.mp4", "width": 640,
                      "height": 360, "fps": 29.97, "bundle": {"export_id": "abc"}, "options": {"nms": "cross-class"}}
    first, second = frame["instances"]
    assert list(first) == ["id", "class_id", "label", "score", "box", "segmentation", "origin", "age"]
    assert (first["id"], first["class_id"], first["label"], first["origin"], first["age"]) \
        == (3, 1, "person", "detected", 0)
    assert (second["id"], second["class_id"], second["label"], second["origin"], second["age"]) \
        == (8, 2, "giant_panda", "propagated", 2)
    assert first["score"] == pytest.approx(0.9, abs=1e-7)
    assert first["box"] == pytest.approx(result.boxes_px[0].tolist(), abs=1e-3)
    assert np.array_equal(coco_mask.decode(first["segmentation"]).astype(bool), result.masks[0])
    assert (frame["type"], frame["index"], frame["time_s"]) == ("frame", 4, 0.133333)
    assert empty == {"type": "frame", "index": 5, "time_s": 0.166667, "instances": []}
    assert end == {"type": "end", "frames": 2, "interrupted": False, "damage": Damage(2).to_dict()}


def test_a_header_that_cannot_be_written_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    plain = open
    monkeypatch.setattr("builtins.open", lambda *args, **options: opened.append(plain(*args, **options)) or opened[-1])
    with pytest.raises(ValueError, match="JSON"):
        ResultsWriter(tmp_path / "r.jsonl", ResultsHeader("clip", 64, 48, float("nan")))
    assert [file.closed for file in opened] == [True]
    assert not (tmp_path / "r.jsonl").exists()  # the next run would be refused, as if there were results


def test_a_path_may_be_a_string(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl")
    assert read_results(str(path)) == read_results(path)
    with pytest.raises(InputError, match="missing.jsonl cannot be read"):
        read_results(str(tmp_path / "missing.jsonl"))


def test_reads_back_what_was_written(tmp_path: Path) -> None:
    results = read_results(write(tmp_path / "r.jsonl"))
    assert results.header == HEADER
    assert [frame["index"] for frame in results.frames] == [0, 1, 2]
    assert results.frames == [frame_record(frame_result(index=index)) for index in range(3)]
    assert results.end == {"type": "end", "frames": 3, "interrupted": True,
                           "damage": Damage(3, packet_errors=2).to_dict()}


@given(st.floats(0, 1, width=32), st.lists(st.floats(0, 8192, width=32), min_size=4, max_size=4))
def test_enough_digits(score: float, box: list[float]) -> None:
    result = frame_result([(0.5, 0.5, 0)], scores=[score])
    result.boxes_px[0] = box
    instance = json.loads(json.dumps(frame_record(result)))["instances"][0]
    assert abs(instance["score"] - score) <= 1e-7
    assert np.abs(np.array(instance["box"]) - box).max() <= 1e-3
    assert max(instance["box"]) <= 8192


def test_a_name_that_is_no_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")  # as Python reads it from a disk of another encoding
    with ResultsWriter(tmp_path / "r.jsonl", ResultsHeader(name, 640, 360, None)):
        pass
    assert read_results(tmp_path / "r.jsonl").header.source == "caf?.mp4"


def test_every_frame_is_readable_at_once(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with ResultsWriter(path, HEADER) as writer:
        assert read_results(path).frames == []
        for index in range(3):
            writer.write(frame_line(frame_result(index=index)))
            results = read_results(path)
            assert (len(results.frames), results.end) == (index + 1, None)


def test_a_killed_run_keeps_its_frames(tmp_path: Path) -> None:
    script = """
        import os, pathlib, signal, sys
        from results_sample import frame_result
        from stmask_deploy.runtime.results_jsonl import ResultsHeader, ResultsWriter, frame_line
        writer = ResultsWriter(pathlib.Path(sys.argv[1]), ResultsHeader("x", 640, 360, None))
        for index in range(7):
            writer.write(frame_line(frame_result(index=index)))
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "r.jsonl")],
                          cwd=Path(__file__).parent, check=False)
    assert done.returncode == -9
    results = read_results(tmp_path / "r.jsonl")
    assert (len(results.frames), results.end) == (7, None)


def test_every_cut_is_tolerated(tmp_path: Path) -> None:
    data = write(tmp_path / "r.jsonl", 2).read_bytes()
    path = tmp_path / "cut.jsonl"
    header_size = data.index(b"\n") + 1
    for size in [*range(header_size, len(data) - 1, 17), len(data) - 1]:
        path.write_bytes(data[:size])
        results = read_results(path)
        assert len(results.frames) == data[:size].count(b"\n") - 1
        assert results.end is None
    path.write_bytes(data[:header_size - 1])
    with pytest.raises(InputError, match="no header line"):
        read_results(path)


@pytest.mark.parametrize(("change", "message"), [
    (lambda lines: [lines[0], b"{half", *lines[2:]], "line 2 is not JSON"),
    (lambda lines: [lines[0], b"\xff\xfe", *lines[2:]], "line 2 is not JSON"),
    (lambda lines: [lines[0], b"[" * 100_000, *lines[2:]], "line 2 is not JSON"),
    (lambda lines: [lines[0], b"[1]", *lines[2:]], "line 2 is not a record"),
    (lambda lines: [lines[0], b'{"type":"mark"}', *lines[2:]], "line 2: expected a frame, found 'mark'"),
    (lambda lines: [lines[0], b'{"type":"frame","index":0}', *lines[2:]], "line 2: expected a frame"),
    (lambda lines: [lines[0], lines[3], *lines[1:]], "line 2: expected a frame, found 'end'"),
    (lambda lines: lines[1:], "no header line"),
    (lambda lines: [], "no header line"),
    (lambda lines: [lines[0].replace(b"results/1", b"results/9"), *lines[1:]], "expected schema .* found"),
    (lambda lines: [lines[0].replace(b'"width"', b'"breadth"'), *lines[1:]], "lacks 'width'"),
])
def test_other_damage_is_an_error(tmp_path: Path, change: object, message: str) -> None:
    path = write(tmp_path / "r.jsonl", 2)
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"".join(line + b"\n" for line in change(lines)))  # type: ignore[operator]
    with pytest.raises(InputError, match=message):
        read_results(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read .No such file"):
        read_results(tmp_path / "r.jsonl")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none(value: float) -> None:
    with pytest.raises(StmaskError, match="frame 6: .* not a finite number"):
        frame_line(frame_result([(0.5, 0.5, 0.2)], index=6, scores=[value]))
    bad_box = frame_result([(0.5, 0.5, 0.2)])
    bad_box.boxes_px[0, 2] = value
    with pytest.raises(StmaskError, match="not a finite number"):
        frame_line(bad_box)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_frames_are_read_back(tmp_path: Path, count: int) -> None:
    path = tmp_path / "r.jsonl"
    with ResultsWriter(path, HEADER) as writer:
        for index in range(count):
            writer.write(frame_line(frame_result(index=index)))
        path.rename(tmp_path / "moved.jsonl")
        assert list(writer.frames()) == [frame_record(frame_result(index=index)) for index in range(count)]
        writer.finish(Damage(count), interrupted=False)
        assert list(writer.frames()) == [frame_record(frame_result(index=index)) for index in range(count)]
    assert len(read_results(tmp_path / "moved.jsonl").frames) == count


def test_frames_that_something_else_changed(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with ResultsWriter(path, HEADER) as writer:
        writer.write(frame_line(frame_result()))
        with path.open("ab") as file:
            file.write(b"{half\n")
        with pytest.raises(InputError, match=r"r\.jsonl, line 3 is not JSON"):
            list(writer.frames())


def test_frames_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.BufferedReader):
        def __next__(self) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

    with ResultsWriter(tmp_path / "r.jsonl", HEADER) as writer:
        monkeypatch.setattr(results_jsonl.io, "BufferedReader", Broken)
        with pytest.raises(OutputError, match=r"r\.jsonl cannot be read back \(Input/output error\)"):
            list(writer.frames())


def test_never_overwrites(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl")
    before = path.read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        ResultsWriter(path, HEADER)
    assert path.read_bytes() == before


def test_never_writes_what_appeared_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results_jsonl, "check_writable", lambda *_, **__: None)
    (tmp_path / "others").write_bytes(b"precious")
    (tmp_path / "r.jsonl").symlink_to(tmp_path / "others")
    (tmp_path / "s.jsonl").symlink_to(tmp_path / "nowhere")
    for name in ("r", "s"):
        with pytest.raises(OutputError, match="File exists"):
            ResultsWriter(tmp_path / f"{name}.jsonl", HEADER)
    assert (tmp_path / "others").read_bytes() == b"precious" and not (tmp_path / "nowhere").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = open("/dev/full", "w+b", buffering=0)
    monkeypatch.setattr(results_jsonl, "open", lambda *_, **__: full, raising=False)
    with pytest.raises(OutputError, match="r.jsonl cannot be written: No space left") as caught:
        ResultsWriter(tmp_path / "r.jsonl", HEADER)
    assert caught.value.exit_code == 4 and full.closed


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs resource limits")
def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    script = """
        import pathlib, resource, sys
        from results_sample import frame_result
        from stmask_deploy.errors import OutputError
        from stmask_deploy.runtime.results_jsonl import ResultsHeader, ResultsWriter, frame_line
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        try:
            with ResultsWriter(pathlib.Path(sys.argv[1]), ResultsHeader("x", 640, 360, None)) as writer:
                for index in range(1000):
                    writer.write(frame_line(frame_result(index=index)))
        except OutputError as error:
            print(index, error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "r.jsonl")],
                          cwd=Path(__file__).parent, check=True, capture_output=True, text=True)
    failed_at, message = done.stdout.strip().split(" ", 1)
    assert "cannot be written: File too large" in message
    assert len(read_results(tmp_path / "r.jsonl").frames) == int(failed_at) > 0
