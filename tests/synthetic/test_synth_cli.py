"""The command and what it writes."""
from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from stmask_deploy.datasets.annotations import read_annotations
from stmask_deploy.datasets.segmentation import decode
from stmask_deploy.errors import OutputError
from stmask_deploy.folder_lock import locked_folder
from stmask_deploy.synthetic import cli, writer
from stmask_deploy.synthetic.cli import main
from stmask_deploy.synthetic.clips import render
from stmask_deploy.synthetic.outlines import CLASSES
from stmask_deploy.synthetic.split_folder import SplitFolder
from stmask_deploy.synthetic.splits import SPLITS

SIZE = (54, 96)
SMALL = ("--clips", 2, "--frames", 3, "--size", "54x96", "--workers", 1)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_one_is_told_as_one(tmp_path: Path) -> None:
    result = run(tmp_path, "--split", "val", "--clips", 1, "--frames", 1, "--size", "54x96", "--workers", 1)
    assert ": 1 clip, 1 frame in " in result.stdout


def test_a_split_that_is_named_twice_is_written_once(tmp_path: Path) -> None:
    result = run(tmp_path, "--split", "val", "--split", "val", "--clips", 1, "--frames", 1, "--size", "54x96",
                 "--workers", 1)
    assert (result.exit_code, result.stdout.count("\n")) == (0, 1), result.output


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synth")
    result = run(folder, *SMALL)
    assert result.exit_code == 0, result.output
    return folder


def test_the_layout(written: Path) -> None:
    assert sorted(path.name for path in written.iterdir()) == ["hard", "train", "val"]
    frames = [f"JPEGImages/val_{clip:04d}/{index:05d}.jpg" for clip in range(2) for index in range(3)]
    assert sorted(files(written / "val")) == [*frames, "instances.json"]


def test_what_it_says(written: Path, tmp_path: Path) -> None:
    result = run(tmp_path, "--split", "hard", *SMALL)
    assert result.stdout.startswith(f"{tmp_path}/hard/instances.json: 2 clips, 6 frames in ")
    assert result.stderr == "", "no progress where there is no terminal"


@pytest.mark.parametrize("split", ["train", "val", "hard"])
def test_the_datasets_reader_reads_it(written: Path, split: str) -> None:
    annotations = read_annotations(written / split / "instances.json")
    assert tuple(category.name for category in annotations.categories) == CLASSES
    assert [(video.height, video.width, video.length) for video in annotations.videos] == [(*SIZE, 3)] * 2
    for index, video in enumerate(annotations.videos):
        clip = render(split, index, 3, SIZE)
        tracks = annotations.tracks_of(video.id)
        assert [track.category_id for track in tracks] == clip.class_ids.tolist()
        for index, name in enumerate(video.file_names):
            picture = cv2.imread(str(written / split / "JPEGImages" / name))
            assert np.abs(picture.astype(int) - clip.frame(index).image).mean() < 6  # JPEG thins out colour
            for track, mask in zip(tracks, clip.masks(index), strict=True):
                segmentation = track.segmentations[index]
                assert (segmentation is None) == (not mask.any())
                assert segmentation is None or np.array_equal(decode(segmentation), mask)


def test_the_json_has_what_the_format_asks_for(written: Path) -> None:
    content = json.loads((written / "hard" / "instances.json").read_text())
    assert set(content) == {"info", "licenses", "categories", "videos", "annotations"}
    assert [track["id"] for track in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
    for track in content["annotations"]:
        assert set(track) == {"id", "video_id", "category_id", "iscrowd", "width", "height", "length",
                              "segmentations", "bboxes", "areas"}
        assert (track["iscrowd"], track["height"], track["width"], track["length"]) == (0, *SIZE, 3)
        assert len(track["segmentations"]) == len(track["bboxes"]) == len(track["areas"]) == 3
        for segmentation, box, area in zip(track["segmentations"], track["bboxes"], track["areas"], strict=True):
            assert (segmentation is None) == (box is None) == (area is None)
            if segmentation is not None:
                ys, xs = np.nonzero(decode(segmentation))
                assert box == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
                assert area == len(xs)


def test_the_number_of_processes_does_not_matter(written: Path, tmp_path: Path) -> None:
    arguments = [2 if before == "--workers" else one for before, one in zip((None, *SMALL), SMALL, strict=False)]
    assert run(tmp_path, "--split", "hard", *arguments).exit_code == 0
    assert files(tmp_path / "hard") == files(written / "hard")


def test_a_split_that_is_there_is_kept(written: Path) -> None:
    before = files(written)
    result = run(written, *SMALL)
    assert result.exit_code == 4
    assert f"{written}/train exists already; use --overwrite" in result.stderr
    assert files(written) == before


def test_nothing_is_written_when_one_of_the_splits_is_there(tmp_path: Path) -> None:
    assert run(tmp_path, "--split", "hard", *SMALL).exit_code == 0
    assert run(tmp_path, *SMALL).exit_code == 4
    assert [path.name for path in tmp_path.iterdir()] == ["hard"]


def test_overwriting_replaces_clips_and_keeps_other_files(tmp_path: Path) -> None:
    assert run(tmp_path, "--split", "val", *SMALL).exit_code == 0
    own = tmp_path / "val" / "JPEGImages" / "my_clip"
    own.mkdir()
    result = run(tmp_path, "--split", "val", "--clips", 1, "--frames", 2, "--size", "54x96", "--workers", 1,
                 "--overwrite")
    assert result.exit_code == 0
    assert sorted(path.name for path in (tmp_path / "val" / "JPEGImages").iterdir()) == ["my_clip", "val_0000"]
    assert len(list((tmp_path / "val" / "JPEGImages" / "val_0000").iterdir())) == 2


@pytest.mark.parametrize("content", ["{}", "[]", "not JSON", '{"info": {"description": "YouTube-VIS"}}'])
def test_annotations_of_others_are_never_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / "val").mkdir()
    foreign = tmp_path / "val" / "instances.json"
    foreign.write_text(content)
    result = run(tmp_path, "--split", "val", *SMALL, "--overwrite")
    assert result.exit_code == 4
    assert "was not written by stmask-synth" in result.stderr
    assert foreign.read_text() == content


def test_pictures_without_annotations_are_something_already(tmp_path: Path) -> None:
    (tmp_path / "val" / "JPEGImages" / "0a49f5265b").mkdir(parents=True)
    assert run(tmp_path, "--split", "val", *SMALL).exit_code == 4


@pytest.mark.parametrize(("arguments", "message"), [
    (("--size", "360"), "is not HEIGHTxWIDTH"),
    (("--size", "360x"), "is not HEIGHTxWIDTH"),
    (("--size", "-1x5"), "is not HEIGHTxWIDTH"),
    (("--size", "8x8"), "sides are 32 to 4096 pixels"),
    (("--clips", "0"), "0 is not in the range"),
    (("--frames", "0"), "0 is not in the range"),
    (("--workers", "0"), "0 is not in the range"),
    (("--split", "test"), "'test' is not one of"),
])
def test_wrong_use(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    result = run(tmp_path / "out", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    result = run(tmp_path / "out", *SMALL)
    assert result.exit_code == 4
    assert "cannot be written" in result.stderr


@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (OSError(errno.ENOSPC, os.strerror(28)), 4)])
def test_a_run_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException,
                                          code: int, overwrite: bool) -> None:
    if overwrite:
        assert run(tmp_path, "--split", "val", *SMALL).exit_code == 0
    before = files(tmp_path)
    imencode, calls = cv2.imencode, []

    def fail(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == 5:  # in the second clip
            raise error
        return imencode(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(cv2, "imencode", fail)
        result = run(tmp_path, "--split", "val", "--clips", 3, *SMALL[2:], *["--overwrite"] * overwrite)
    assert result.exit_code == code and len(calls) == 5
    assert files(tmp_path) == before
    assert run(tmp_path, "--split", "val", *SMALL, *["--overwrite"] * overwrite).exit_code == 0
    assert (tmp_path / "val" / "instances.json").exists()


def test_clips_whose_annotations_cannot_be_written_do_not_look_complete(tmp_path: Path,
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(tmp_path, "--split", "val", *SMALL).exit_code == 0

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        assert run(tmp_path, "--split", "val", *SMALL, "--overwrite").exit_code == 4
    left = files(tmp_path / "val")
    assert left and all(name.endswith(".jpg") for name in left)
    again = run(tmp_path, "--split", "val", *SMALL)
    assert again.exit_code == 4 and "val holds pictures or videos without instances.json; use" in again.stderr


def test_what_a_killed_run_left_is_removed(tmp_path: Path, written: Path) -> None:
    left = tmp_path / "val" / ".unfinished" / "val_0007"
    left.mkdir(parents=True)
    (left / "00000.jpg").write_bytes(b"half")
    assert run(tmp_path, "--split", "val", *SMALL).exit_code == 0
    assert files(tmp_path / "val") == files(written / "val")


def test_two_runs_do_not_write_to_one_split(tmp_path: Path) -> None:
    (tmp_path / "val").mkdir()
    with locked_folder(tmp_path / "val"):
        result = run(tmp_path, "--split", "val", *SMALL, "--overwrite")
    assert result.exit_code == 4 and "another run is writing to" in result.stderr
    assert not files(tmp_path)


def test_a_split_that_another_run_finished_meanwhile_is_kept(tmp_path: Path) -> None:
    folder = SplitFolder(tmp_path / "val", SPLITS["val"], as_video=False)
    folder.check(overwrite=False)
    assert run(tmp_path, "--split", "val", *SMALL).exit_code == 0
    before = files(tmp_path)
    with pytest.raises(OutputError, match="val exists already"), folder.unfinished(overwrite=False):
        pass
    assert files(tmp_path) == before


def test_clips_on_another_disk(tmp_path: Path, written: Path) -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as other:
        (tmp_path / "val").mkdir()
        (tmp_path / "val" / "JPEGImages").symlink_to(other)
        assert run(tmp_path, "--split", "val", *SMALL).exit_code == 0
        assert files(Path(other)) == files(written / "val" / "JPEGImages")
        assert (tmp_path / "val" / "JPEGImages").is_symlink()


def test_a_reader_that_goes_away_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    monkeypatch.setattr("click.echo", gone)
    assert run(tmp_path, "--split", "val", "--split", "hard", *SMALL).exit_code == 4
    assert all((tmp_path / name / "instances.json").exists() for name in ("val", "hard"))


def test_an_object_that_is_never_seen_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = render("val", 0, 2, SIZE)
    monkeypatch.setattr(type(clip), "masks", lambda self, index: np.zeros((len(self.ids), *SIZE), np.bool_))
    assert writer.write_clip(clip, tmp_path).tracks == []


def test_videos_instead_of_pictures(tmp_path: Path) -> None:
    args = [str(tmp_path), "--split", "val", "--clips", "1", "--frames", "4", "--size", "64x96", "--workers", "1"]
    pictures = CliRunner().invoke(main, args)
    assert pictures.exit_code == 0, pictures.output
    truth = json.loads((tmp_path / "val" / "instances.json").read_text())
    assert CliRunner().invoke(main, [*args, "--video"]).exit_code == 4, "a split is there"
    done = CliRunner().invoke(main, [*args, "--video", "--overwrite"])
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "val" / "JPEGImages" / "val_0000").exists(), "pictures of the earlier run are gone"
    assert json.loads((tmp_path / "val" / "instances.json").read_text()) == truth, "the same clip, the same truth"
    with av.open(str(tmp_path / "val" / "videos" / "val_0000.mp4")) as container:
        frames = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    clip = render("val", 0, 4, (64, 96))
    assert len(frames) == 4
    assert max(np.abs(frame.astype(int) - clip.frame(index).image).mean() for index, frame in enumerate(frames)) < 8


def test_videos_have_even_sides(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, [str(tmp_path), "--split", "val", "--clips", "1", "--size", "65x96", "--video"])
    assert done.exit_code == 2 and "even sides" in done.stderr
    assert not (tmp_path / "val").exists()


def test_a_folder_one_may_not_look_at_is_none_that_is_there(shut_folder: Path) -> None:
    SplitFolder(shut_folder / "val", SPLITS["val"], False).check(overwrite=False)  # making it is what is refused then


@pytest.mark.parametrize("size", ["4096x32", "32x4096", "1056x64"])
def test_sides_that_differ_too_much(tmp_path: Path, size: str) -> None:
    done = run(tmp_path / "out", "--split", "val", "--clips", "1", "--frames", "1", "--size", size)
    assert (done.exit_code, "a side is at most 16 times the other" in done.stderr) == (2, True), done.output
    assert not any((tmp_path / "out").rglob("*.jpg"))


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "val" / "JPEGImages").mkdir(parents=True)
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(OutputError, match="val cannot be written: Permission denied"):
        SplitFolder(tmp_path / "val", SPLITS["val"], False).check(overwrite=False)


@pytest.mark.parametrize("option", ["--clips", "--frames"])
def test_more_than_a_split_can_have(tmp_path: Path, option: str) -> None:
    done = CliRunner().invoke(main, [str(tmp_path), "--split", "val", option, "100001"])
    assert done.exit_code == 2 and "clips count from 0 to 99999 and have 1 to 10000 frames" in done.stderr
    assert not any(tmp_path.iterdir())


def test_its_processes_end_with_it(tmp_path: Path) -> None:
    """However it ends: they would wait for work for ever, and do what is left of it."""
    program = """
import os, signal, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from stmask_deploy.synthetic.writer import _start_worker
if __name__ == "__main__":
    pool = ProcessPoolExecutor(1, get_context("spawn"), _start_worker)
    print(pool.submit(os.getpid).result(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    script = tmp_path / "killed.py"
    script.write_text(program)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=100)
    worker, deadline = int(done.stdout), time.monotonic() + 60
    while Path(f"/proc/{worker}").exists():
        assert time.monotonic() < deadline, "the worker goes on"
        time.sleep(0.05)


@pytest.mark.skipif(not hasattr(signal, "pthread_sigmask"), reason="the system has no signal masks")
def test_ctrl_c_waits_while_its_processes_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They inherit that they are not interrupted; otherwise each would print a traceback until it can ignore it."""
    blocked: list[bool] = []

    class Pool:
        def __init__(self, *_: object) -> None:
            pass

        def map(self, call: Callable[[object], object], tasks: list[object]) -> list[object]:
            blocked.append(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))
            os.kill(os.getpid(), signal.SIGINT)
            return [call(task) for task in tasks]

        def shutdown(self, **_: object) -> None:
            blocked.append(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))

    monkeypatch.setattr(writer, "ProcessPoolExecutor", Pool)
    assert run(tmp_path, "--split", "val", *SMALL[:-1], 2).exit_code == 130
    assert blocked == [True, False]
    assert not files(tmp_path)


def test_a_link_in_the_place_of_a_clip_is_replaced(tmp_path: Path) -> None:
    assert run(tmp_path, "--split", "val", "--clips", 2, "--frames", 2, "--size", "64x96").exit_code == 0
    clip, other = tmp_path / "val" / "JPEGImages" / "val_0000", tmp_path / "other"
    clip.rename(other)
    clip.symlink_to(other)
    kept = files(other)
    done = run(tmp_path, "--split", "val", "--clips", 2, "--frames", 2, "--size", "64x96", "--overwrite")
    assert done.exit_code == 0, done.output
    assert not clip.is_symlink() and files(clip) == kept == files(other)


def test_without_standard_error_it_shows_no_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)
    with cli._Progress("val", 2) as progress:
        progress.advance()


def test_a_system_that_starts_no_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = []

    def fail(count: int, *_: object) -> None:
        counts.append(count)
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(writer, "ProcessPoolExecutor", fail)
    monkeypatch.setattr(writer, "MAX_WORKERS", 61)
    result = run(tmp_path, "--split", "val", "--clips", 100, "--frames", 1, "--size", "54x96", "--workers", 80)
    assert result.exit_code == 1 and result.stderr.strip() == (
        "error: no processes can be started ([Errno 30] Read-only file system); use --workers 1")
    assert counts == [61]  # more is an error on Windows
