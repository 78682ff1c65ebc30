from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from media import NUM_FRAMES, SIZE, cut, pictures, shown_index, write_coded, write_video, zeroed

from stmask_deploy.errors import InputError
from stmask_deploy.runtime import video_source
from stmask_deploy.runtime.frame_source import Damage
from stmask_deploy.runtime.video_source import VideoSource


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """whole.mp4, .mkv, .ts, .avi and faststart.mp4: the same pictures in several containers."""
    folder = tmp_path_factory.mktemp("videos")
    for suffix in ("mp4", "mkv", "ts", "avi"):
        write_video(folder / f"whole.{suffix}", pictures())
    write_video(folder / "faststart.mp4", pictures(), movflags="faststart")
    return folder


def read(path: Path) -> tuple[list[int], Damage]:
    with VideoSource(path) as source:
        return [shown_index(frame.image) for frame in source], source.damage


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
def test_every_frame_in_order_with_its_time(folder: Path, suffix: str) -> None:
    with VideoSource(folder / f"whole.{suffix}") as source:
        frames = list(source)
    assert (source.kind, source.name, source.is_live) == ("video", f"whole.{suffix}", False)
    assert (source.height, source.width, source.fps, source.num_frames) == (*SIZE, 30.0, NUM_FRAMES)
    assert [frame.index for frame in frames] == list(range(NUM_FRAMES))
    assert [shown_index(frame.image) for frame in frames] == list(range(NUM_FRAMES))
    assert [frame.time_s for frame in frames] == pytest.approx([index / 30 for index in range(NUM_FRAMES)], abs=1.1e-3)
    assert source.damage == Damage(frames=NUM_FRAMES)


def test_pixels_are_contiguous_bgr(folder: Path) -> None:
    with VideoSource(folder / "whole.mp4") as source:
        image = next(iter(source)).image
    assert image.dtype == np.uint8
    assert image.flags.c_contiguous
    assert np.abs(image.astype(int) - pictures(1)[0]).mean() < 6
    assert image[4, 4, 2] > 180 > 90 > image[4, 4, 0]


@pytest.mark.parametrize(("suffix", "codec", "pixels"), [("mjpeg", "mjpeg", "yuvj420p"), ("gif", "gif", "rgb8")])
def test_a_cut_picture_at_the_end_is_damage(tmp_path: Path, suffix: str, codec: str, pixels: str) -> None:
    whole = write_coded(tmp_path / f"whole.{suffix}", range(4), codec, 25, pixels)
    assert not read(whole)[1].is_damaged
    if suffix == "gif":  # some programs append something
        for appended in (b"\n", b"\0" * 100):
            (tmp_path / "appended.gif").write_bytes(whole.read_bytes() + appended)
            assert not read(tmp_path / "appended.gif")[1].is_damaged
    for share in (0.5, 0.6, 0.7, 0.9):
        shown, damage = read(cut(tmp_path / f"cut.{suffix}", whole, share))
        assert len(shown) >= 2 and damage.packet_errors == 1, share


@pytest.mark.parametrize("suffix", ["mkv", "asf", "nut"])
def test_a_late_start_is_no_damage(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"late.{suffix}", pictures(60), times=[10 + index / 30 for index in range(60)])
    with VideoSource(path) as source:
        assert [shown_index(frame.image) for frame in source] == list(range(60))
    assert source.damage == Damage(frames=60)
    assert source.num_frames == pytest.approx(60, abs=1)  # nut announces when the last frame starts


def test_a_late_start_does_not_hide_a_cut(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "late.mkv", pictures(), times=[10 + index / 30 for index in range(NUM_FRAMES)])
    shown, damage = read(cut(tmp_path / "cut.mkv", whole, 0.5))
    assert 10 < len(shown) < 60
    assert len(shown) + damage.missing_frames == pytest.approx(NUM_FRAMES, abs=2)


def test_a_last_picture_that_is_held_is_no_damage(tmp_path: Path) -> None:
    path = write_coded(tmp_path / "held.gif", range(10), "gif", 10, "rgb8", final_delay="500")  # hundredths of a second
    with VideoSource(path) as source:
        assert [frame.time_s for frame in source] == pytest.approx([index / 10 for index in range(10)])
    assert source.damage == Damage(frames=10)


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_dropped_frames_of_avi_are_no_damage(tmp_path: Path, codec: str) -> None:
    stamps = [2 * index + index // 7 for index in range(50)]  # the frames between them are chunks without a byte
    whole = write_coded(tmp_path / "dropped.avi", stamps, codec, 30)
    with VideoSource(whole) as source:
        assert len(list(source)) == source.num_frames == 50
    assert source.damage == Damage(frames=50)
    shown, damage = read(zeroed(tmp_path / "zeroed.avi", whole, 0.5))
    assert damage.is_damaged and len(shown) < 50
    assert len(shown) + damage.missing_frames == pytest.approx(50, abs=damage.packet_errors)
    for share in (0.6, 0.75):
        shown, damage = read(cut(tmp_path / "cut.avi", whole, share))
        assert damage.missing_frames >= 50 - len(shown) - damage.packet_errors > 0


@pytest.mark.parametrize("steps_ms", [
    [40, 270, 40, 850, 40],
    [33, 33, 33, 200, 33, 50, 17, 33, 33, 33, 120, 33] * 6,
    [33] * 30 + [150] + [33, 66, 100] * 10,  # looks even at first
    [40] * 60 + [120] * 20, ([40] * 12 + [120] * 4) * 5, [40] * 100 + [120, 121, 119] * 3,
], ids=["few frames", "a phone", "a screen", "a second rate", "from one rate to the other",
        "a short second rate"])
def test_a_changing_rate_is_no_hole(tmp_path: Path, steps_ms: list[int]) -> None:
    times = [sum(steps_ms[:index]) / 1000 for index in range(len(steps_ms) + 1)]
    shown, damage = read(write_video(tmp_path / "v.ts", pictures(len(times)), times=times))
    assert damage == Damage(frames=len(times))
    assert shown == list(range(len(times)))


@pytest.mark.parametrize("lost", [[60, 61, 63, 64, 66, 67], [60, 61, 62, 64, 65, 66], [60, 61, 100, 101, 120, 121]])
def test_a_few_losses_as_long_as_each_other_are_no_second_rate(tmp_path: Path, lost: list[int]) -> None:
    times = [index / 25 for index in range(150) if index not in lost]
    _, damage = read(write_video(tmp_path / "v.ts", pictures(len(times)), times=times, fps=25))
    assert damage.packet_errors == sum(index + 1 not in lost for index in lost)


def test_many_losses_of_which_some_follow_each_other_are_no_second_rate(tmp_path: Path) -> None:
    steps = [3, 3, 1, 1, 1, 1, 3, 1, 1, 1] * 12  # of 25 per second; a third of the gaps follow one as long
    times = [sum(steps[:index]) / 25 for index in range(len(steps) + 1)]
    _, damage = read(write_video(tmp_path / "v.ts", pictures(len(times)), times=times, fps=25))
    assert damage.packet_errors == 3 * 12


def test_times_without_a_rate(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the file, as far as it has any; a frame that does not come later has the time of the one before."""
    monkeypatch.setattr(video_source, "frame_rate", lambda _: None)
    fast = write_coded(tmp_path / "fast.mkv", range(40), "mpeg4", 2000)  # Matroska rounds to milliseconds
    with VideoSource(fast) as source:
        times = [frame.time_s for frame in source]
    assert times == pytest.approx([index / 2000 for index in range(40)], abs=0.0006)
    assert times == sorted(times)

    decode = video_source.VideoSource._advance

    def without_stamp(self: VideoSource, frame: av.VideoFrame) -> None:
        decode(self, SimpleNamespace(pts=None, dts=None, time_base=None, duration=0))

    monkeypatch.setattr(video_source.VideoSource, "_advance", without_stamp)
    with VideoSource(folder / "whole.mp4") as source:
        assert [frame.time_s for frame in source] == pytest.approx([index / 30 for index in range(NUM_FRAMES)])


@pytest.mark.parametrize(("num_frames", "every"), [(12, 6), (200, 50), (200, 12), (200, 8)])
def test_every_hole_of_a_constant_rate_is_found(tmp_path: Path, num_frames: int, every: int) -> None:
    """Three frames missing in every so many."""
    times = [index / 30 for index in range(num_frames) if index % every < every - 3]
    shown, damage = read(write_video(tmp_path / "v.ts", pictures(len(times)), times=times))
    assert damage == Damage(frames=len(times), packet_errors=(num_frames - 1) // every)
    assert len(shown) == len(times)


def test_variable_frame_times_are_kept(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.31, 0.35, 1.2]
    with VideoSource(write_video(tmp_path / "v.mp4", pictures(5), times=times)) as source:
        assert [frame.time_s for frame in source] == pytest.approx(times)


@pytest.mark.parametrize("name", ["a:b.mp4", "50%d.mp4", "été 猫.mp4", "clip"])
def test_any_file_name(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).write_bytes((folder / "whole.mp4").read_bytes())
    monkeypatch.chdir(tmp_path)
    assert len(read(Path(name))[0]) == NUM_FRAMES


def test_an_edit_list_is_no_damage(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "trimmed.mp4"
    with av.open(str(folder / "whole.mp4")) as source, av.open(str(path), "w") as target:
        stream = source.streams.video[0]
        copied = target.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.pts -= int(1 / packet.time_base)
                packet.dts -= int(1 / packet.time_base)
                packet.stream = copied
                target.mux(packet)
    shown, damage = read(path)
    assert shown == list(range(30, NUM_FRAMES))
    assert damage == Damage(frames=60)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
@pytest.mark.parametrize("position", [0.3, 0.5, 0.7])
def test_zeroed_bytes_are_reported(folder: Path, tmp_path: Path, suffix: str, position: float) -> None:
    shown, damage = read(zeroed(tmp_path / f"z.{suffix}", folder / f"whole.{suffix}", position))
    assert damage.is_damaged
    assert damage.frames == len(shown) < NUM_FRAMES
    assert len(shown) > NUM_FRAMES // 3
    assert shown[0] == 0


def test_a_hole_in_a_transport_stream_is_reported(folder: Path, tmp_path: Path) -> None:
    data = (folder / "whole.ts").read_bytes()
    pieces = [data[start:start + 188] for start in range(0, len(data), 188)]
    starts = [index for index, piece in enumerate(pieces) if piece[1] & 0x5F == 0x41 and piece[2] == 0]  # of pictures
    # The cut ends where the four-bit counter of the packets continues, so nothing tells of it but the time.
    first = starts[30]
    end = next(start for start in starts[40:] if pieces[start][3] & 15 == pieces[first][3] & 15)
    path = tmp_path / "hole.ts"
    path.write_bytes(b"".join(pieces[:first] + pieces[end:]))
    shown, damage = read(path)
    assert len(shown) < NUM_FRAMES - 5
    assert damage.packet_errors >= 1


@pytest.mark.parametrize("name", ["faststart.mp4", "whole.mkv", "whole.avi"])
def test_a_cut_file_lacks_frames(folder: Path, tmp_path: Path, name: str) -> None:
    shown, damage = read(cut(tmp_path / name, folder / name, 0.5))
    assert 10 < len(shown) < 80
    assert damage.missing_frames > 0
    assert abs(len(shown) + damage.missing_frames + damage.packet_errors - NUM_FRAMES) <= 4


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9])
def test_a_cut_plain_mp4_cannot_be_opened(folder: Path, tmp_path: Path, share: float) -> None:
    with pytest.raises(InputError, match="damaged, cut off or of another kind"):
        VideoSource(cut(tmp_path / "cut.mp4", folder / "whole.mp4", share))


def test_a_header_without_frames(folder: Path, tmp_path: Path) -> None:
    data = (folder / "faststart.mp4").read_bytes()
    path = tmp_path / "empty.mp4"
    path.write_bytes(data[:data.index(b"mdat") + 4])
    with pytest.raises(InputError, match="no frame that can be decoded"):
        VideoSource(path)


@pytest.mark.parametrize(("name", "text"), [
    ("list.m3u8", "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\n{target}\n#EXT-X-ENDLIST\n"),
    ("list.ffconcat", "ffconcat version 1.0\nfile '{target}'\n"),
    ("notes.txt", "just words\n"),
    ("noise.mp4", "\x00\x01\x02" * 999),
])
def test_what_is_no_video_is_refused(folder: Path, tmp_path: Path, name: str, text: str) -> None:
    path = tmp_path / name
    (tmp_path / "target.ts").write_bytes((folder / "whole.ts").read_bytes())
    path.write_text(text.format(target="target.ts"))
    with pytest.raises(InputError, match="cannot be opened as a video") as caught:
        VideoSource(path)
    assert "\n" not in str(caught.value)


def test_a_change_of_size_names_the_frame(tmp_path: Path) -> None:
    first = write_video(tmp_path / "a.ts", pictures(20))
    second = write_video(tmp_path / "b.ts", pictures(20, (96, 64)))
    path = tmp_path / "both.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    with VideoSource(path) as source, pytest.raises(InputError, match=r"frame 20 of both.ts is 64x96 .* 64x48"):
        list(source)
    assert source.damage.frames == 20


class BreakingOff:
    """A container that gives `num_packets` of its packets, and then an error whenever it is asked."""

    def __init__(self, container: Any, num_packets: int) -> None:
        self._container, self._left = container, num_packets

    def demux(self, stream: Any) -> Iterator[Any]:
        for packet in self._container.demux(stream):
            if not self._left:
                raise av.error.OSError(errno.EIO, "Input/output error")
            self._left -= 1
            yield packet

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)


def test_a_disk_that_fails_costs_no_frame_that_was_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    container = BreakingOff(video_source._open_container(folder / "whole.mp4"), 30)
    monkeypatch.setattr(video_source, "_open_container", lambda _: container)
    shown, damage = read(folder / "whole.mp4")
    # What comes after the gap in the order of decoding may come before it in that of showing.
    assert len(shown) == 30 and shown[:28] == list(range(28))
    assert damage == Damage(frames=30, packet_errors=video_source.MAX_FAILED_READS, missing_frames=NUM_FRAMES - 30)


class Stuttering(BreakingOff):
    """A container that fails once before each of its first `num_packets` packets."""

    _fails = False

    def demux(self, stream: Any) -> Iterator[Any]:
        packets = self._container.demux(stream)
        while True:
            self._fails = not self._fails and self._left > 0
            if self._fails:
                raise av.error.OSError(errno.EIO, "Input/output error")
            self._left -= 1
            packet = next(packets, None)
            if packet is None:
                return
            yield packet


def test_only_failures_in_a_row_end_a_video(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video_source, "MAX_FAILED_READS", 10)
    container = Stuttering(video_source._open_container(folder / "whole.mp4"), 40)
    monkeypatch.setattr(video_source, "_open_container", lambda _: container)
    shown, damage = read(folder / "whole.mp4")
    assert shown == list(range(NUM_FRAMES)) and damage == Damage(frames=NUM_FRAMES, packet_errors=40)


def test_a_cut_clip_of_less_than_a_second_lacks_frames(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "short.mkv", pictures(24))
    assert read(whole)[1] == Damage(frames=24)
    shown, damage = read(cut(tmp_path / "cut.mkv", whole, 0.4))
    assert len(shown) < 12 and damage.missing_frames > 0
    assert abs(len(shown) + damage.missing_frames + damage.packet_errors - 24) <= 3


def test_a_damaged_time_is_no_time(tmp_path: Path) -> None:
    """As one of 64 bits in IVF: neither results nor annotated videos can hold it."""
    path = write_video(tmp_path / "v.mp4", pictures(5), fps=10)
    frames = iter(range(100))

    class Damaged(VideoSource):
        def _advance(self, frame: av.VideoFrame) -> None:
            if next(frames) == 2:
                frame.pts = 2**62
            super()._advance(frame)

    with Damaged(path) as source:
        assert [frame.time_s for frame in source] == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])
