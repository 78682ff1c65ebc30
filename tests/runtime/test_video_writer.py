from __future__ import annotations

import subprocess
import sys
import textwrap
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media import SIZE, picture, pictures, shown_index
from perturbed_memory import needs_glibc, written_files

from stmask_deploy.errors import OutputError
from stmask_deploy.runtime import video_writer
from stmask_deploy.runtime.video_source import VideoSource
from stmask_deploy.runtime.video_writer import VideoWriter, check_size


def write(path: Path, images: list[np.ndarray], fps: float | None = None, times: list[float] | None = None) -> Path:
    with VideoWriter(path, fps) as writer:
        for index, image in enumerate(images):
            writer.write(image, times[index] if times else None)
    return path


def read(path: Path) -> tuple[list[int], list[float]]:
    with VideoSource(path) as source:
        frames = list(source)
    assert not source.damage.is_damaged
    return [shown_index(frame.image) for frame in frames], [frame.time_s for frame in frames]


def boxes(path: Path) -> list[str]:
    """Names of the top-level boxes of an mp4."""
    data, position, names = path.read_bytes(), 0, []
    while position < len(data):
        size = int.from_bytes(data[position:position + 4], "big")
        names.append(data[position + 4:position + 8].decode())
        assert size >= 8
        position += size
    return names


def test_what_browsers_need(tmp_path: Path) -> None:
    path = write(tmp_path / "v.mp4", pictures(70), fps=30)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt, context.profile) == ("h264", "yuv420p", "High")
        assert (context.color_primaries, context.color_trc, context.colorspace, context.color_range) == (1, 1, 1, 1)
        assert (stream.frames, stream.average_rate, stream.start_time) == (70, 30, 0)
        assert stream.duration * stream.time_base == pytest.approx(70 / 30)
        keyframes = [packet.pts * packet.time_base for packet in container.demux(stream) if packet.is_keyframe]
    assert keyframes[0] == 0
    assert np.diff([*keyframes, 70 / 30]).max() <= 1  # at least one a second
    names = boxes(path)
    assert names[0] == "ftyp"
    assert names.count("moov") == names.count("mdat") == 1  # an ordinary mp4 with one index, no fragments left
    assert "moof" not in names


def test_pictures_and_times_come_back(tmp_path: Path) -> None:
    shown, times = read(write(tmp_path / "v.mp4", pictures(50), fps=25))
    assert shown == list(range(50))
    assert times == pytest.approx([index / 25 for index in range(50)], abs=1e-4)


def test_it_is_seekable(tmp_path: Path) -> None:
    path = write(tmp_path / "v.mp4", pictures(90), fps=30)
    with av.open(str(path)) as container:
        container.seek(2_000_000)
        frame = next(container.decode(video=0))
    assert 1 < frame.time <= 2  # the keyframe before
    assert shown_index(frame.to_ndarray(format="bgr24")) == round(frame.time * 30)


@pytest.mark.parametrize("fps", [23.976, 24, 25, 29.97, 30, 59.94, 60, 1, 0.5, 240, None])
def test_frame_rates(tmp_path: Path, fps: float | None) -> None:
    with VideoSource(write(tmp_path / "v.mp4", pictures(12), fps=fps)) as source:
        times = [frame.time_s for frame in source]
    assert source.fps == pytest.approx(fps or 30, rel=1e-3)
    assert times == pytest.approx([index / (fps or 30) for index in range(12)], rel=1e-3, abs=1e-4)


def test_times_of_the_source_are_kept(tmp_path: Path) -> None:
    given = [0.0, 0.04, 0.31, 0.35, 1.2, 1.21]
    assert read(write(tmp_path / "v.mp4", pictures(6), 30, given))[1] == pytest.approx(given, abs=1e-4)


def test_times_that_do_not_grow_are_mended(tmp_path: Path) -> None:
    shown, times = read(write(tmp_path / "v.mp4", pictures(5), 10, [0.5, 0.5, 0.2, 0.75, 0.75]))
    assert shown == list(range(5))
    assert times == pytest.approx([0.0, 0.1, 0.2, 0.25, 0.35], abs=1e-4)  # read from the first frame on


@pytest.mark.parametrize("size", [(48, 63), (47, 64), (1, 1), (2, 2), (3, 5), (240, 426)])
def test_odd_sizes_are_padded_by_one(tmp_path: Path, size: tuple[int, int]) -> None:
    images = [np.full((*size, 3), 40 * index, np.uint8) for index in range(4)]
    with VideoSource(write(tmp_path / "v.mp4", images)) as source:
        decoded = [frame.image for frame in source]
    even = (size[0] + size[0] % 2, size[1] + size[1] % 2, 3)
    for image, written in zip(decoded, images, strict=True):
        assert image.shape == even
        assert np.abs(image.astype(int) - written[0, 0]).max() <= 8  # the padding as well


@pytest.mark.parametrize("size", [(64, 96), (63, 96), (64, 95), (63, 95)])
def test_pixels_stay_where_they_are(tmp_path: Path, size: tuple[int, int]) -> None:
    rows, columns = np.indices(size)
    squares = np.where((rows // 8 + columns // 8) % 2, 255, 0).astype(np.uint8)
    with VideoSource(write(tmp_path / "v.mp4", [np.dstack([squares] * 3)])) as source:
        [frame] = source
    error = np.abs(frame.image[:size[0], :size[1]].astype(int) - squares[..., None])
    assert error.mean() < 8 and np.quantile(error, 0.95) < 40  # shifted by a pixel, a quarter would be wrong


def test_a_failure_at_the_end_is_told_unless_there_was_one_before(tmp_path: Path,
                                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_writer: VideoWriter) -> None:
        raise OutputError("the end failed")

    monkeypatch.setattr(VideoWriter, "close", fail)
    with pytest.raises(OutputError, match="the end failed"), VideoWriter(tmp_path / "a.mp4"):
        pass
    with pytest.raises(OutputError, match="first"), VideoWriter(tmp_path / "b.mp4"):
        raise OutputError("first")


@pytest.mark.parametrize("aspect", [Fraction(3, 2), Fraction(11, 16), Fraction(1)])
def test_pixels_keep_their_aspect(tmp_path: Path, aspect: Fraction) -> None:
    with VideoWriter(tmp_path / "v.mp4", 30, aspect) as writer:
        for image in pictures(3):
            writer.write(image)
    with av.open(str(tmp_path / "v.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.sample_aspect_ratio or 1) == aspect
        assert (stream.width, stream.height) == (SIZE[1], SIZE[0])


@pytest.mark.parametrize("color", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 255, 255), (200, 80, 120)])
def test_colours_come_back(tmp_path: Path, color: tuple[int, int, int]) -> None:
    with VideoSource(write(tmp_path / "v.mp4", [np.full((48, 64, 3), color, np.uint8)] * 3)) as source:
        image = next(iter(source)).image
    assert np.abs(image[24, 32].astype(int) - color).max() <= 6


def test_a_single_frame_lasts_as_long_as_any(tmp_path: Path) -> None:
    with av.open(str(write(tmp_path / "v.mp4", pictures(1), fps=10))) as container:
        stream = container.streams.video[0]
        assert stream.duration * stream.time_base == pytest.approx(0.1, abs=1e-3)


def test_a_view_can_be_written(tmp_path: Path) -> None:
    wide = picture(3, (48, 80))
    path = write(tmp_path / "v.mp4", [wide[:, :64], wide[:, ::-1][:, :64]])
    with VideoSource(path) as source:
        first = next(iter(source)).image
    assert np.abs(first.astype(int) - wide[:, :64]).mean() < 8


def test_no_frame_no_file(tmp_path: Path) -> None:
    write(tmp_path / "v.mp4", [])
    assert list(tmp_path.iterdir()) == []


def test_never_overwrites(tmp_path: Path) -> None:
    path = write(tmp_path / "v.mp4", pictures(3))
    before = path.read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        VideoWriter(path)
    assert path.read_bytes() == before


def test_frames_slower_than_the_encoder_can_be_told(tmp_path: Path) -> None:
    path = write(tmp_path / "v.mp4", pictures(3), fps=1e-4, times=[0, 10000, 20000])
    assert read(path)[0] == [0, 1, 2]


def test_the_largest_side(tmp_path: Path) -> None:
    check_size(16384, 16384)
    for height, width in ((16385, 2), (2, 16385)):
        with pytest.raises(OutputError, match=f"frames of {width}x{height} do not fit .* 16384 pixels a side"):
            check_size(height, width)
    write(tmp_path / "wide.mp4", [np.zeros((2, 16384, 3), np.uint8)])


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        VideoWriter(tmp_path / "no" / "v.mp4")


def test_an_interrupted_run_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    with pytest.raises(KeyboardInterrupt), VideoWriter(path) as writer:
        for image in pictures(5):
            writer.write(image)
        raise KeyboardInterrupt
    assert read(path)[0] == list(range(5))


def test_a_closed_video_is_not_begun_again(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "v.mp4") as writer:
        writer.write(picture())
    with pytest.raises(OutputError, match="closed already"):
        writer.write(picture())
    writer.close()
    assert read(tmp_path / "v.mp4")[0] == [0]


def run_child(script: str, path: Path) -> subprocess.CompletedProcess[str]:
    head = """
        import os, pathlib, resource, signal, sys
        from media import picture
        from stmask_deploy.errors import OutputError
        from stmask_deploy.runtime.video_writer import VideoWriter
        path = pathlib.Path(sys.argv[1])
    """
    return subprocess.run([sys.executable, "-c", textwrap.dedent(head) + textwrap.dedent(script), str(path)],
                          cwd=Path(__file__).parent.parent, check=False, capture_output=True, text=True)


def test_a_killed_run_leaves_a_playable_file(tmp_path: Path) -> None:
    done = run_child("""
        writer = VideoWriter(path, 30)
        for index in range(150):
            writer.write(picture(index))
        os.kill(os.getpid(), signal.SIGKILL)
    """, tmp_path / "v.mp4")
    assert done.returncode == -9
    shown, times = read(tmp_path / "v.mp4")
    assert shown == list(range(len(shown)))
    assert len(shown) >= 150 - 30 - 30  # one second, and what the encoder holds back
    assert times[-1] == pytest.approx((len(shown) - 1) / 30, abs=1e-3)


def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    done = run_child("""
        resource.setrlimit(resource.RLIMIT_FSIZE, (60000, 60000))
        import numpy as np
        rng = np.random.default_rng(0)
        try:
            with VideoWriter(path, 30) as writer:
                for index in range(300):
                    writer.write(rng.integers(0, 255, (96, 128, 3), dtype=np.uint8))
        except OutputError as error:
            print(index, error.exit_code, error)
    """, tmp_path / "v.mp4")
    assert (done.returncode, done.stderr) == (0, "")
    failed_at, code, message = done.stdout.strip().split(" ", 2)
    assert 10 < int(failed_at) < 300
    assert code == "4"
    assert "v.mp4 cannot be written" in message
    assert "File too large" in message
    with VideoSource(tmp_path / "v.mp4") as source:
        assert len(list(source)) > 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
def test_a_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_writer, "check_writable", lambda *_, **__: None)
    with pytest.raises(OutputError, match="No space left"), VideoWriter(Path("/dev/full")) as writer:
        for index in range(200):
            writer.write(picture(index, SIZE))


def test_a_missing_encoder_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise av.codec.codec.UnknownCodecError("libx264")

    monkeypatch.setattr(av.container.OutputContainer, "add_stream", fail)
    with pytest.raises(OutputError, match="needs libx264"), VideoWriter(tmp_path / "v.mp4") as writer:
        writer.write(picture())


def test_time_base_divides_the_usual_rates() -> None:
    from stmask_deploy.runtime.video_writer import TIME_BASE
    for rate in (24, 25, 30, 50, 60, Fraction(30000, 1001)):
        assert (1 / (rate * TIME_BASE)) == round(1 / (rate * TIME_BASE))


def test_a_rate_that_cannot_be_written_is_what_is_told(tmp_path: Path) -> None:
    with pytest.raises(OverflowError):  # and not what closing a video without a stream would raise
        write(tmp_path / "v.mp4", pictures(2), fps=1e10)


def test_an_error_of_another_file_costs_no_frame(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="another file"), VideoWriter(tmp_path / "v.mp4", 30) as writer:
        for image in pictures(40):
            writer.write(image)
        raise OutputError("another file")
    assert read(tmp_path / "v.mp4")[0] == list(range(40))


def test_gaps_that_a_file_cannot_hold_are_shortened(tmp_path: Path) -> None:
    """mp4 stores steps of less than 6.6 hours."""
    times = [0.0, 1 / 30, 21_000.0, 45_000.0, 45_001.0, 1e15]
    found = read(write(tmp_path / "v.mp4", pictures(6), 30, times))[1]
    assert found[:3] == pytest.approx(times[:3], abs=1e-3)
    longest = 6 * 3600.0
    assert found[3:] == pytest.approx([found[2] + longest, 45_001.0, 45_001.0 + longest], abs=1e-3)
    slow = read(write(tmp_path / "slow.mp4", pictures(3), 1e-5))[1]
    assert slow == pytest.approx([0, longest, 2 * longest], rel=1e-6)
    assert read(write(tmp_path / "timed.mp4", pictures(3), 1e-5, [0, 1, 2]))[1] == pytest.approx([0, 1, 2], abs=1e-3)


PROGRAM = """if True:
    import sys
    from pathlib import Path
    from stmask_deploy.runtime.video_writer import VideoWriter
    from stmask_deploy.synthetic.clips import render
    with VideoWriter(Path(sys.argv[1]), 24) as writer:
        for frame in render("train", 3, 12, (240, 426)):
            writer.write(frame.image)
"""


@needs_glibc
def test_a_file_does_not_depend_on_what_was_freed(tmp_path: Path) -> None:
    first, *others = written_files(PROGRAM, tmp_path, ".mp4")
    assert all(other == first for other in others)
