from __future__ import annotations

import gc
import itertools
import socket
import time
import weakref
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from live_servers import EncodingServer, FileServer, MjpegServer, jpeg, paced, rtsp_server, tcp_server, udp_sender
from media import picture, pictures, shown_index, write_video

from stmask_deploy.errors import InputError
from stmask_deploy.runtime import stream_connection
from stmask_deploy.runtime.stream_connection import StreamConnection
from stmask_deploy.runtime.upright import Orientation, upright

PLAYLIST = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1,\n"


def ignore(**_: int) -> None:
    pass


def read(address: str, count: int | None = None) -> tuple[list[int], Counter[str]]:
    """The indices shown by the pictures of a connection, and the damage."""
    counts: Counter[str] = Counter()
    connection = StreamConnection(address, "stream", lambda **noted: counts.update(noted))
    try:
        shown = [shown_index(image) for image in itertools.islice(connection.pictures(), count)]
    finally:
        connection.close()
    return shown, +counts


def test_every_picture_until_the_stream_ends() -> None:
    with MjpegServer(paced(range(1, 12))) as server:
        assert read(server.address) == (list(range(1, 12)), Counter())


def test_nothing_of_a_closed_connection_waits_for_pythons_search_for_circles() -> None:
    """Its decoder's threads would stay until then."""
    gc.disable()
    try:
        with MjpegServer(paced(itertools.cycle(range(1, 12)))) as server:
            connection = StreamConnection(server.address, "stream", ignore)
            left = weakref.ref(connection)
            next(connection.pictures())
            connection.close()
            del connection
            assert left() is None
    finally:
        gc.enable()


def test_rtsp_through_one_connection() -> None:
    """UDP would need ports that firewalls close, and lose packets."""
    requests: list[str] = []
    with rtsp_server(requests) as address:
        shown, counts = read(address, 10)
    assert shown == list(range(shown[0], shown[0] + 10)) and not counts
    assert [request.split()[0] for request in requests] == ["OPTIONS", "DESCRIBE", "SETUP", "PLAY"]
    assert "RTP/AVP/TCP" in requests[2]


def test_a_transport_stream_over_udp() -> None:
    with udp_sender() as address:
        shown, counts = read(address, 10)
    assert shown == list(range(shown[0], shown[0] + 10)) and not counts


def test_rate_aspect_and_colour() -> None:
    with MjpegServer(paced(range(5))) as server:
        connection = StreamConnection(server.address, "stream", ignore)
        image = next(connection.pictures())
        connection.close()
    assert (connection.fps, connection.pixel_aspect) == (None, 1)  # MJPEG announces none
    assert image.shape == (48, 64, 3) and image.flags.c_contiguous
    assert np.abs(image[:10, :14].astype(int) - (30, 30, 220)).max() < 20  # blue, green, red


def test_a_damaged_picture_is_counted() -> None:
    broken = jpeg(picture(3))
    script = [*paced([1, 2]), broken[:20] + b"\xff" * 200, *paced([4, 5, 6])]
    with MjpegServer(script) as server:
        shown, counts = read(server.address)
    assert set(shown) >= {1, 2, 4, 5, 6} and sum(counts.values()) >= 1


def test_damage_before_the_first_picture_does_not_count() -> None:
    """A stream that is joined midway starts with pieces of pictures."""
    with MjpegServer([jpeg(picture(3))[:20] + b"\xff" * 200, *paced([4, 5, 6])]) as server:
        shown, counts = read(server.address)
    assert shown[-3:] == [4, 5, 6] and not counts


def test_what_goes_on_is_not_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_connection, "SILENT_S", 0.5)
    with MjpegServer(paced(range(40))) as server:  # 1.6 s
        assert read(server.address) == (list(range(40)), Counter())


def test_the_first_picture_may_take_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that is joined between two key frames."""
    script = [item for _ in range(100) for item in (b"piece", 0.02)]
    monkeypatch.setattr(stream_connection, "SILENT_S", 0.4)
    with MjpegServer([*script, *paced([7, 8])], [*script, *paced([7, 8])]) as server:
        assert read(server.address)[0][-2:] == [7, 8]
        monkeypatch.setattr(stream_connection, "FIRST_S", 0.3)
        with pytest.raises(InputError, match="no picture that can be decoded.*key frames"):
            read(server.address)


def test_a_picture_that_cannot_be_converted_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    failing = iter([False, False, True] + [False] * 99)

    def convert(frame: av.VideoFrame, orientation: Orientation) -> np.ndarray:
        if next(failing):
            raise av.error.ArgumentError(22, "no memory")
        return upright(frame, orientation)

    monkeypatch.setattr(stream_connection, "upright", convert)
    with MjpegServer(paced(range(6))) as server:
        assert read(server.address) == ([0, 1, 3, 4, 5], Counter(packet_errors=1))


def test_a_picture_that_is_cut_off_is_counted() -> None:
    """Decoders fill what is missing."""
    script = [item for index in range(6)
              for item in (jpeg(picture(index))[:-200] if index in (2, 3) else picture(index), 0.04)]
    with MjpegServer(script) as server:
        assert read(server.address)[1] == Counter(packet_errors=2)


def test_what_is_lost_on_the_way_is_counted(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "whole.ts", pictures(90)).read_bytes()
    pieces = [whole[start:start + 188] for start in range(0, len(whole), 188)]
    file = tmp_path / "lossy.ts"
    file.write_bytes(b"".join(piece for index, piece in enumerate(pieces) if index < 80 or index % 29))
    with av.open(str(file)) as container:
        packets = list(container.demux(video=0))
        num_corrupt_frames = sum(frame.is_corrupt for packet in packets for frame in packet.decode())
    with tcp_server(file.read_bytes()) as address:
        _, counts = read(address)
    assert counts["packet_errors"] == sum(packet.is_corrupt for packet in packets) > 2
    assert counts["corrupt_frames"] == num_corrupt_frames > 0


def test_decoding_holds_no_picture_back() -> None:
    """Threads for whole pictures would hold back one each."""
    with MjpegServer(paced(range(3))) as server:
        connection = StreamConnection(server.address, "stream", ignore)
        assert connection._stream.thread_type.name == "SLICE"
        connection.close()


def test_pieces_without_a_picture_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_connection, "SILENT_S", 0.4)
    pieces = [item for _ in range(60) for item in (b"piece", 0.02)]
    with MjpegServer([*paced(range(30)), *pieces, *paced([77, 78])]) as server:
        shown, _ = read(server.address)
    assert 29 in shown and 78 not in shown


def test_silence_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_connection, "SILENT_S", 0.5)
    with MjpegServer([*paced([1, 2, 3]), 60.0]) as server:
        start_s = time.monotonic()
        shown, _ = read(server.address)
    assert shown[:2] == [1, 2] and time.monotonic() - start_s < 10


@pytest.mark.parametrize(("num_failures", "is_lost"), [(3, False), (4, True)])
def test_packets_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, num_failures: int, is_lost: bool) -> None:
    """They are counted, and only several in a row end the connection."""
    monkeypatch.setattr(stream_connection, "MAX_FAILED_READS", 4)

    class Failing:
        def __init__(self, container: Any) -> None:
            self._container, self._script = container, [0, 0, 1, *[1] * (num_failures - 1), 0, 1, 0]

        def demux(self) -> Iterator[av.Packet]:
            for packet in self._container.demux():
                while self._script and self._script.pop(0):
                    raise av.error.InvalidDataError(1094995529, "Invalid data")
                yield packet

        def close(self) -> None:
            self._container.close()

    with MjpegServer(paced(range(12))) as server:
        counts: Counter[str] = Counter()
        connection = StreamConnection(server.address, "stream", lambda **noted: counts.update(noted))
        connection._container = Failing(connection._container)
        connection._decoded = connection._decode()
        shown = [shown_index(image) for image in connection.pictures()]
        connection.close()
    assert +counts == Counter(packet_errors=4 if is_lost else num_failures + 1)
    assert (len(shown) < 5) is is_lost and (is_lost or shown[-1] == 11)


def test_sound_without_pictures_ends_it() -> None:
    """Packets keep coming, so no read ever times out."""
    class Talking:
        def demux(self) -> Iterator[av.Packet]:
            while True:
                time.sleep(0.01)
                yield av.Packet(b"")

    with MjpegServer(paced(range(5))) as server:
        connection = StreamConnection(server.address, "stream", ignore)
        connection.close()
        connection._container, connection._patience_s = Talking(), 0.2
        assert list(connection._packets()) == []


@pytest.mark.parametrize(("address", "message"), [
    ("rtsp://127.0.0.1:1/live", r"stream cannot be opened \(Connection refused\); check that the address"),
    ("http://name.invalid/live", r"stream cannot be opened \("),
    ("rtsp://[::1/live", r"stream cannot be opened \("),
    ("http://127.0.0.1:port/live", r"stream cannot be opened \("),
])
def test_what_cannot_be_reached(address: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        StreamConnection(address, "stream", ignore)
    assert caught.value.__cause__ is None  # it would tell the password


def test_what_the_server_does_not_have() -> None:
    with MjpegServer() as server, pytest.raises(InputError, match=r"cannot be opened \(.*404 Not Found"):
        StreamConnection(server.address, "stream", ignore)


def test_a_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_connection, "OPEN_S", 0.4)
    with socket.create_server(("127.0.0.1", 0)) as server:
        for scheme in ("rtsp", "http"):
            with pytest.raises(InputError, match=r"cannot be opened \(no answer within 0.4 s\)"):
                StreamConnection(f"{scheme}://127.0.0.1:{server.getsockname()[1]}/x", "stream", ignore)


def test_what_is_no_video() -> None:
    with MjpegServer([b"nothing"] * 3, headers={"Content-Type": "text/html"}) as server:
        with pytest.raises(InputError, match="^stream "):
            StreamConnection(server.address, "stream", ignore)


@pytest.mark.parametrize("part", ["file://{clip}", "data:video/mp2t;base64,{data}", "{clip}"])
def test_a_playlist_leads_to_nothing_but_servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    monkeypatch.setattr(stream_connection, "OPEN_S", 1.0)
    clip = write_video(tmp_path / "private.ts", pictures(30))
    part = part.format(clip=clip, data=b64encode(clip.read_bytes()).decode())
    with FileServer({"live.m3u8": PLAYLIST + part.encode()}) as server, pytest.raises(InputError):
        StreamConnection(f"{server.address}/live.m3u8", "stream", ignore)


def test_a_live_playlist(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "part.ts", pictures(30))
    with FileServer({"live.m3u8": PLAYLIST + b"part.ts\n", "part.ts": clip.read_bytes()}) as server:
        address = f"{server.address}/live.m3u8"
        connection = StreamConnection(address, address, ignore)  # although the playlist has a size
        shown = [shown_index(image) for image in itertools.islice(connection.pictures(), 20)]
        connection.close()
    assert shown == list(range(20))


def test_pictures_of_a_playlist_are_as_far_apart_as_they_were_taken(tmp_path: Path) -> None:
    """They arrive as fast as the line allows; of all but the newest nothing would be seen."""
    clip = write_video(tmp_path / "part.ts", pictures(30))
    waits: list[float] = []
    with FileServer({"live.m3u8": PLAYLIST + b"part.ts\n", "part.ts": clip.read_bytes()}) as server:
        address = f"{server.address}/live.m3u8"
        connection = StreamConnection(address, address, ignore, waits.append)
        start_s = time.monotonic()
        assert len(list(itertools.islice(connection.pictures(), 20))) == 20
        took_s = time.monotonic() - start_s
        connection.close()
    assert waits == pytest.approx([index / 30 for index in range(20)], abs=took_s + 0.05)  # nobody has waited


def test_pieces_that_were_written_one_by_one_are_not_damaged(tmp_path: Path) -> None:
    files = {f"{number}.ts": write_video(tmp_path / f"{number}.ts", pictures(30)).read_bytes() for number in range(3)}
    files["live.m3u8"] = PLAYLIST + b"0.ts\n" + b"".join(b"#EXTINF:1,\n%d.ts\n" % number for number in (1, 2))
    with FileServer(files) as server:
        shown, counts = read(f"{server.address}/live.m3u8", 70)
    assert len(shown) == 70 and counts == Counter()


def test_other_streams_come_at_their_own_pace() -> None:
    with EncodingServer("mpegts", {}) as server:
        connection = StreamConnection(f"{server.address}/live", f"{server.address}/live", ignore, pytest.fail)
        assert len(list(itertools.islice(connection.pictures(), 5))) == 5
        connection.close()


def test_a_playlist_with_an_end_is_a_recording(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "part.ts", pictures(30))
    playlist = PLAYLIST + b"part.ts\n#EXT-X-ENDLIST\n"
    with FileServer({"live.m3u8": playlist, "part.ts": clip.read_bytes()}) as server:
        address = f"{server.address}/live.m3u8"
        with pytest.raises(InputError, match="is a recording"):
            StreamConnection(address, address, ignore)


def test_scripts_of_ffmpeg_are_no_streams(tmp_path: Path) -> None:
    clip = write_video(tmp_path / "part.ts", pictures(30))
    files = {"live": b"ffconcat version 1.0\nfile part.ts\n", "part.ts": clip.read_bytes()}
    with FileServer(files) as server, pytest.raises(InputError, match="cannot be opened"):
        StreamConnection(f"{server.address}/live", "stream", ignore)


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "h264"])
def test_a_recording_is_refused(tmp_path: Path, suffix: str) -> None:
    """It would come as fast as the line allows, and most of it would be skipped."""
    clip = write_video(tmp_path / f"clip.{suffix}", pictures(60))
    with FileServer({clip.name: clip.read_bytes()}) as server:
        with pytest.raises(InputError, match="is a recording, not a live stream; download it and give the file"):
            StreamConnection(f"{server.address}/{clip.name}", f"{server.address}/{clip.name}", ignore)


@pytest.mark.parametrize(("kind", "options"), [
    ("mp4", {"movflags": "frag_keyframe+empty_moov"}), ("matroska", {}), ("mpegts", {}), ("flv", {})])
def test_what_has_no_end_is_no_recording(kind: str, options: dict[str, str]) -> None:
    with EncodingServer(kind, options) as server:
        connection = StreamConnection(f"{server.address}/live", f"{server.address}/live", ignore)
        shown = [shown_index(image) for image in itertools.islice(connection.pictures(), 10)]
        connection.close()
    assert shown == list(range(shown[0], shown[0] + 10))


class Sizeless:
    """A container as PyAV 19 shows one whose size is not known."""

    size = None

    def __init__(self, container: Any) -> None:
        self._container = container

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)


def test_a_size_that_is_not_known_is_none_with_some_releases(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = av.open
    with EncodingServer("mpegts", {}) as server:
        monkeypatch.setattr(av, "open", lambda file, *args, **options: (
            Sizeless(opened(file, *args, **options)) if file == f"{server.address}/live"  # the server opens one too
            else opened(file, *args, **options)))
        connection = StreamConnection(f"{server.address}/live", f"{server.address}/live", ignore)
        assert isinstance(shown_index(next(connection.pictures())), int)
        connection.close()


def test_a_size_that_a_camera_announces_of_its_pictures_means_nothing() -> None:
    with MjpegServer(paced(range(5)), headers={"Content-Length": "9999999"}) as server:
        connection = StreamConnection(server.address, server.address, ignore)
        assert shown_index(next(connection.pictures())) == 0
        connection.close()
