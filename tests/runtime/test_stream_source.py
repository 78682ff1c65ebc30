from __future__ import annotations

import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from live_servers import FileServer, MjpegServer, paced
from media import pictures, shown_index, write_video

from stmask_deploy.errors import InputError
from stmask_deploy.runtime import stream_connection, stream_source
from stmask_deploy.runtime.frame_source import Frame
from stmask_deploy.runtime.sources import open_source
from stmask_deploy.runtime.stream_connection import StreamConnection
from stmask_deploy.runtime.stream_source import StreamSource


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_source, "FIRST_RETRY_S", 0.05)
    monkeypatch.setattr(stream_source, "MAX_RETRY_S", 0.1)


def shown(frames: list[Frame]) -> list[int]:
    return [shown_index(frame.image) for frame in frames]


def test_what_is_known_of_it() -> None:
    with MjpegServer(paced(range(9))) as server, StreamSource(server.address.replace("//", "//me:pass@")) as source:
        assert (source.kind, source.is_live, source.name) == ("stream", True, server.address)
        assert (source.width, source.height, source.fps, source.num_frames) == (64, 48, None, None)
        assert source.pixel_aspect == 1 and source.files == ()


def test_a_lost_connection_is_made_again(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """At first in vain: the server answers with an error, twice."""
    monkeypatch.setattr(stream_source, "GIVE_UP_S", 0.4)
    scripts = [paced(range(8)), None, None, paced(range(50, 58))]
    with MjpegServer(*scripts) as server, StreamSource(server.address) as source:
        frames = list(source)
    assert server.num_requests > 4  # and then again, in vain
    lost = f"{server.address} is lost; connecting again"
    assert caplog.messages == [lost, f"{server.address} is back after 0 s", lost,
                               f"{server.address} did not come back within 0 s"]
    found = shown(frames)
    assert found == sorted(found) and found[-1] == 57 and any(index < 8 for index in found)
    assert [frame.index for frame in frames] == list(range(len(frames)))  # identities go on, so numbers do, too
    assert source.damage.lost_connections == 2 and source.damage.is_damaged
    assert source.damage.frames == len(frames)
    times = [frame.time_s for frame in frames]
    assert times == sorted(times)


def test_every_connection_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_source, "GIVE_UP_S", 0.3)
    opened: list[StreamConnection] = []
    closed: list[StreamConnection] = []
    connect, close = StreamConnection.__init__, StreamConnection.close
    monkeypatch.setattr(StreamConnection, "__init__", lambda own, *args: (connect(own, *args), opened.append(own))[0])
    monkeypatch.setattr(StreamConnection, "close", lambda own: (close(own), closed.append(own))[0])
    with MjpegServer(paced(range(4)), paced(range(4)), paced(range(999))) as server:
        with StreamSource(server.address) as source:
            for frame in source:
                if source.damage.lost_connections == 2 and frame.index > 3:
                    break
    assert opened == closed and len(opened) == 3


def test_a_playlist_s_picture_that_is_not_due_delays_no_end(tmp_path: Path) -> None:
    times = [index / 30 + (4 if index >= 45 else 0) for index in range(60)]
    clip = write_video(tmp_path / "part.ts", pictures(60), times=times)
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1,\npart.ts\n"
    with FileServer({"live.m3u8": playlist, "part.ts": clip.read_bytes()}) as server:
        with StreamSource(f"{server.address}/live.m3u8") as source:
            time.sleep(2.5)  # the thread waits for the picture of the sixth second
            assert shown_index(next(iter(source)).image) == 44
            start_s = time.monotonic()
        assert time.monotonic() - start_s < 0.9  # less than leaving the thread to itself takes
        assert source._thread is not None and not source._thread.is_alive()


def test_a_playlist_that_ends_is_not_lost(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clip = write_video(tmp_path / "part.ts", pictures(30))
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:0\n#EXTINF:1,\npart.ts\n"
    files = {"live.m3u8": playlist, "part.ts": clip.read_bytes()}
    with FileServer(files) as server, StreamSource(f"{server.address}/live.m3u8") as source:
        files["live.m3u8"] += b"#EXT-X-ENDLIST\n"
        frames = list(source)
    assert shown_index(frames[-1].image) == 29
    assert not source.damage.is_damaged
    assert caplog.messages[-1] == f"{source.name} has ended"


def test_silence_is_a_lost_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_connection, "SILENT_S", 0.4)
    with MjpegServer([*paced(range(8)), 60.0], paced(range(50, 90))) as server:
        with StreamSource(server.address) as source:
            for frame in source:
                if shown_index(frame.image) >= 50:
                    break
    assert source.damage.lost_connections == 1


def test_another_size_is_fitted_to_the_first() -> None:
    """As of a camera that was set up anew. The results and the video have one size."""
    with MjpegServer(paced(range(8)), paced(range(50, 90), (96, 128))) as server:
        with StreamSource(server.address) as source:
            for frame in source:
                assert frame.image.shape == (48, 64, 3)
                if shown_index(frame.image) >= 50:
                    break
    assert frame.index > 0


def test_waiting_for_the_next_try_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_source, "MAX_RETRY_S", 0.4)
    waits: list[float] = []
    with MjpegServer(paced(range(3))) as server:
        source = StreamSource(server.address)
        # Takes effect before the connection is lost, which takes as long as three pictures.
        monkeypatch.setattr(source._is_ending, "wait", lambda seconds: waits.append(seconds) or len(waits) == 5)
        list(source)
    assert waits == [0.05, 0.1, 0.2, 0.4, 0.4]


def test_closing_ends_the_search_for_a_connection(monkeypatch: pytest.MonkeyPatch,
                                                  caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(stream_source, "FIRST_RETRY_S", 60.0)
    with MjpegServer(paced(range(3))) as server, StreamSource(server.address) as source:
        source.stop_when(lambda: source._counts["lost_connections"] > 0)
        start_s = time.monotonic()
        list(source)
    assert source._thread is not None and not source._thread.is_alive()
    assert time.monotonic() - start_s < 10
    assert source.damage.lost_connections == 1  # although no frame came after it
    assert len(caplog.messages) == 1  # nobody waits for it any more


def test_opening_can_be_interrupted() -> None:
    """Reaching a server that does not answer takes long, in a thread that Ctrl-C does not reach."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"rtsp://127.0.0.1:{server.getsockname()[1]}/live"

        class Waiting(threading.Condition().__class__):  # type: ignore[misc]
            def wait(self, timeout: float | None = None) -> bool:
                raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
            # Only for the source: starting a thread waits for a condition too.
            patch.setattr("stmask_deploy.runtime.live_source.threading",
                          SimpleNamespace(**{**vars(threading), "Condition": Waiting}))
            patch.setattr("stmask_deploy.runtime.live_source.CLOSE_S", 0.0)
            StreamSource(address)


def test_opening_can_be_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stmask_deploy.runtime.live_source.CLOSE_S", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        with pytest.raises(InputError, match="/live was stopped before it gave a picture"):
            open_source(f"rtsp://127.0.0.1:{server.getsockname()[1]}/live", is_stopped=lambda: True)


@pytest.mark.parametrize("address", ["ftp://host/video", "file:///clip.mp4", "srt://host:1", "foo://"])
def test_kinds_of_addresses_that_cannot_be_read(address: str) -> None:
    with pytest.raises(InputError, match="is an address of a kind that cannot be read; known are rtsp, rtsps, "):
        StreamSource(address)


def test_a_scheme_may_have_capitals() -> None:
    with MjpegServer(paced(range(9))) as server, StreamSource(server.address.replace("http", "HTTP")) as source:
        assert source.name == server.address
