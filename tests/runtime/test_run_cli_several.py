"""`stmask-run` with several sources: each has the results of a run of its own."""
from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

import pytest
from run_commands import call, write_clip
from tiny_bundles import save_pictures

from stmask_deploy.errors import OutputError, StmaskError
from stmask_deploy.runtime.results_jsonl import read_results


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "street.mp4", 8)


@pytest.mark.parametrize("options", [(), ("--parallel", 2), ("--parallel", 2, "--mode", "latency")])
def test_several_sources_have_the_results_of_single_runs(bundle: Path, clip: Path, tmp_path: Path,
                                                         options: tuple[Any, ...]) -> None:
    other = write_clip(tmp_path / "park.mp4", 5)
    for source, name in ((clip, "street"), (other, "park")):
        assert call(source, "-m", bundle, "-o", tmp_path / "alone" / name).exit_code == 0
    result = call(clip, other, "-m", bundle, "-o", tmp_path / "out", *options)
    assert result.exit_code == 0, result.output
    assert f"{clip}: 8 frames in" in result.stdout and f"{other}: 5 frames in" in result.stdout
    assert result.stderr.count("ONNX Runtime") == 1  # one model
    for name in ("street", "park"):
        files = sorted(path.name for path in (tmp_path / "out" / name).iterdir())
        assert files == ["results.json", "results.jsonl", "video.mp4"]
        for file in files:
            assert (tmp_path / "out" / name / file).read_bytes() == (tmp_path / "alone" / name / file).read_bytes()


def test_a_source_is_never_replaced_by_its_results(bundle: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "video.mp4", 3)
    pictures = save_pictures(tmp_path / "pictures", [100, 110])
    (pictures / "1.png").rename(pictures / "frame.png")
    for source, folder in ((clip, tmp_path), (pictures, pictures), (pictures / "frame.png", pictures)):
        before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
        result = call(source, "-m", bundle, "-o", folder, "--overwrite")
        assert result.exit_code == 2 and "is an input of this run and would be replaced; use another" in result.stderr
        assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_no_source_is_replaced_by_the_results_of_another(bundle: Path, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call(clip, "-m", bundle, "-o", out / "street").exit_code == 0
    earlier = out / "street" / "video.mp4"
    before = earlier.read_bytes()
    result = call(clip, earlier, "-m", bundle, "-o", out, "--overwrite")
    assert result.exit_code == 2 and f"{earlier} is an input of this run and would be replaced" in result.stderr
    assert earlier.read_bytes() == before and (out / "video" / "results.json").exists()


def test_sources_of_one_name_have_folders_of_their_own(bundle: Path, clip: Path, tmp_path: Path) -> None:
    assert call(clip, clip, clip, "-m", bundle, "-o", tmp_path, "--no-video", "--max-frames", 1).exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["street", "street-2", "street-3"]


def test_a_source_that_fails_leaves_the_others_their_results(bundle: Path, clip: Path, tmp_path: Path,
                                                             monkeypatch: pytest.MonkeyPatch) -> None:
    from stmask_deploy.runtime.run_writer import RunWriter

    write = RunWriter.write

    def fail_for_the_bug(writer: RunWriter, tracked: Any) -> None:
        if writer._source.name == "bug.mp4":
            raise KeyError("a bug")
        if writer._source.name == "half.mp4" and writer.num_frames == 1:
            raise StmaskError("no more")
        write(writer, tracked)

    monkeypatch.setattr(RunWriter, "write", fail_for_the_bug)
    bug, half, last = (write_clip(tmp_path / name, 3) for name in ("bug.mp4", "half.mp4", "last.mp4"))
    taken = tmp_path / "out" / "street-2"
    taken.mkdir(parents=True)
    (taken / "results.json").write_text("precious")
    result = call(clip, clip, bug, tmp_path / "nothing.mp4", half, last, "-m", bundle, "-o", tmp_path / "out",
                  "--no-video")
    assert result.exit_code == 4  # of the first that failed
    told = result.stderr.splitlines()
    assert told[1].startswith(f"error: {clip}: ") and "--overwrite" in told[1]
    assert told[2] == f"error: {bug}: KeyError: 'a bug'"
    assert told[3].startswith(f"error: {tmp_path / 'nothing.mp4'} does not exist")
    kept = tmp_path / "out" / "half" / "results.jsonl"
    assert told[4] == f"error: {half}: no more; 1 frame before that in {kept}"
    assert told[5:] == [f"4 of 6 sources failed: {clip}, {bug}, {tmp_path / 'nothing.mp4'}, {half}"]
    assert (taken / "results.json").read_text() == "precious"
    for name, frames in (("street", 8), ("last", 3)):
        results = read_results(tmp_path / "out" / name / "results.jsonl")
        assert len(results.frames) == frames and results.end is not None


def test_each_message_is_one_line_whatever_the_names(bundle: Path, tmp_path: Path) -> None:
    good = write_clip(tmp_path / "a\nb.mp4", 3)
    cut = write_clip(tmp_path / "c\nd.mkv", 60)
    os.truncate(cut, cut.stat().st_size // 2)
    result = call(good, cut, tmp_path / "e\nf.mp4", "-m", bundle, "-o", tmp_path / "out", "--no-video")
    assert result.exit_code == 2
    told = result.stderr.splitlines()
    starts = (rf"error: {tmp_path}/e\nf.mp4 does not exist", rf"warning: {cut.parent}/c\nd.mkv: the input is damaged",
              rf"1 of 3 sources failed: {tmp_path}/e\nf.mp4")
    assert len(told) == 1 + len(starts)  # after the network's
    assert all(any(line.startswith(start) for line in told) for start in starts)
    assert rf"{tmp_path}/a\nb.mp4: 3 frames in" in result.stdout


def test_sources_are_run_although_nobody_reads_the_messages(bundle: Path, clip: Path, tmp_path: Path,
                                                            monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object, **__: object) -> None:
        raise BrokenPipeError

    for name in ("tell_setup", "tell_summary", "tell_failure", "click.echo"):
        monkeypatch.setattr(f"stmask_deploy.runtime.cli.{name}", gone)
    result = call(tmp_path / "nothing.mp4", clip, clip, "-m", bundle, "-o", tmp_path / "out", "--no-video")
    assert result.exit_code == 2  # of the source that failed
    assert sorted(path.parent.name for path in (tmp_path / "out").glob("*/results.json")) == ["street", "street-2"]


def test_several_sources_and_a_bundle_that_does_not_open(clip: Path, tmp_path: Path) -> None:
    result = call(clip, clip, "-m", tmp_path / "nothing", "-o", tmp_path / "out")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("names", "options", "is_refused"), [
    (["98", "{clip}"], (), True), (["{clip}", "98", "99", "{clip}"], ("--parallel", 2), True),
    (["{clip}", "98"], (), False), (["98", "{clip}"], ("--parallel", 2), False),
    (["98", "{clip}"], ("--max-frames", 1), False), (["98", "{clip}", "{clip}"], ("--parallel", 2), False),
    (["rtsp://me:pass@127.0.0.1:98/x", "{clip}"], (), True),
    (["{clip}", "rtsp://me:pass@127.0.0.1:98/x"], (), False),
])
def test_a_camera_that_would_keep_others_waiting_is_refused(bundle: Path, clip: Path, tmp_path: Path, names: list[str],
                                                            options: tuple[Any, ...], is_refused: bool) -> None:
    result = call(*(name.format(clip=clip) for name in names), "-m", bundle, "-o", tmp_path / "out", "--no-video",
                  *options)
    if is_refused:  # before anything is opened
        name = "camera 98" if "98" in names else "rtsp://127.0.0.1:98/x"
        assert result.exit_code == 2
        assert result.stderr.startswith(f"error: {name} never ends, so the sources after it would never")
        assert f"--parallel {len(names)}" in result.stderr and not (tmp_path / "out").exists()
    else:
        assert result.exit_code == (5 if "98" in names else 2)
        assert "98" in result.stderr and "pass" not in result.stderr + result.stdout  # there is none
        assert (tmp_path / "out" / "street" / "results.json").exists()


def test_cameras_at_the_same_time(bundle: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from stmask_deploy.runtime.frame_source import FrameSource

    monkeypatch.setattr(FrameSource, "is_live", True)
    result = call(clip, clip, "-m", bundle, "-o", tmp_path, "--parallel", 2)
    assert result.exit_code == 0, result.output
    for note in ("bounded memory", "no results.json"):
        assert result.stderr.count(f"{clip}: {note}") == 2
    for name in ("street", "street-2"):
        assert sorted(path.name for path in (tmp_path / name).iterdir()) == ["results.jsonl", "video.mp4"]


def test_sources_that_cannot_be_prepared_are_closed(bundle: Path, clip: Path, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    from stmask_deploy.runtime.video_source import VideoSource

    class Source(VideoSource):
        open_ones: ClassVar[set[object]] = set()
        is_live = True

        def __init__(self, path: Path) -> None:
            super().__init__(path)
            self.open_ones.add(self)

        def close(self) -> None:
            super().close()
            self.open_ones.discard(self)

    def gone(*_: object, **__: object) -> None:
        assert len(Source.open_ones) == 1
        raise OutputError("no more")

    def told(*_: object) -> None:
        assert not Source.open_ones

    monkeypatch.setattr("stmask_deploy.runtime.sources.VideoSource", Source)
    monkeypatch.setattr("stmask_deploy.runtime.model.Model.fork", gone)
    monkeypatch.setattr("stmask_deploy.runtime.cli.tell_failure", told)
    assert call(clip, clip, "-m", bundle, "-o", tmp_path, "--parallel", 2).exit_code == 4


def test_more_at_the_same_time_than_there_are(bundle: Path, clip: Path, tmp_path: Path) -> None:
    result = call(clip, "-m", bundle, "-o", tmp_path / "out", "--parallel", 2)
    assert (result.exit_code, result.stderr) == (2, "error: --parallel 2 needs at least 2 sources, given: 1\n")
