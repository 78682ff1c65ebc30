"""Network streams on this machine, for the tests of what reads them."""
from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from types import MappingProxyType
from typing import Any, Self

import av
import cv2
import numpy as np
from media import picture

RATE = 25
Script = Iterable[np.ndarray | bytes | float]  # pictures, damaged ones, and seconds without any


class Server(ThreadingHTTPServer):
    """Context manager. `address` has no path."""

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.is_ended = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.is_ended.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


class MjpegServer(Server):
    """Pictures as MJPEG over HTTP. The first connection gets the first script, and so on; None and later ones get 404.

    Attributes:
        num_requests: connections so far.
    """

    def __init__(self, *scripts: Script | None, headers: Mapping[str, str] = MappingProxyType({})) -> None:
        super().__init__(_MjpegHandler)
        self.scripts = list(scripts)
        self.headers = {"Content-Type": "multipart/x-mixed-replace; boundary=next", **headers}
        self.num_requests = 0
        self.address += "/live.mjpg"


class _MjpegHandler(Handler):
    server: MjpegServer

    def do_GET(self) -> None:
        number = self.server.num_requests
        self.server.num_requests += 1
        if number >= len(self.server.scripts) or self.server.scripts[number] is None:
            self.send_error(404)
            return
        self.send_response(200)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.end_headers()
        with suppress(OSError):  # the other side has left
            for item in self.server.scripts[number]:
                if isinstance(item, (float, int)):
                    if self.server.is_ended.wait(item):
                        return
                    continue
                data = item if isinstance(item, bytes) else jpeg(item)
                self.wfile.write(b"--next\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n"
                                 % (len(data), data))
                self.wfile.flush()


class EncodingServer(Server):
    """Pictures of `media` as H.264, for ever, in a container of FFmpeg's."""

    def __init__(self, kind: str, options: Mapping[str, str]) -> None:
        class Encoding(Handler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.end_headers()
                with suppress(OSError):
                    _encode(Pipe(self.wfile), kind, self.server.is_ended, options=options)

        super().__init__(Encoding)


class Pipe:
    """A file that can only be written, so that FFmpeg does not go back to complete a header."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        self._file.write(data)
        return len(data)


class FileServer(Server):
    """Plain files over HTTP, by name."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        class Files(Handler):
            def do_GET(self) -> None:
                data = files.get(self.path.strip("/"))
                self.send_response(404 if data is None else 200)
                self.send_header("Content-Length", str(len(data or b"")))
                self.end_headers()
                self.wfile.write(data or b"")

        super().__init__(Files)


def jpeg(image: np.ndarray) -> bytes:
    good, data = cv2.imencode(".jpg", image)
    assert good
    return data.tobytes()


@contextmanager
def tcp_server(data: bytes) -> Iterator[str]:
    """The address of a server that sends `data` to the first who connects, and ends."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                connection, _ = server.accept()
                with connection:
                    connection.sendall(data)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        thread.join(10)


@contextmanager
def udp_sender() -> Iterator[str]:
    """The address that a transport stream of pictures of `media` is sent to."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        address = f"udp://127.0.0.1:{free.getsockname()[1]}"
    is_ended = threading.Event()
    sender = threading.Thread(target=_encode, args=(f"{address}?pkt_size=1316", "mpegts", is_ended), daemon=True)
    sender.start()
    try:
        yield address
    finally:
        is_ended.set()
        sender.join(10)


def _encode(target: Any, kind: str, is_ended: threading.Event, after_each: Callable[[], None] = lambda: None,
            options: Mapping[str, str] = MappingProxyType({})) -> None:
    """Send pictures as H.264 to `target` until the end."""
    with av.open(target, "w", format=kind, options={**options, "flush_packets": "1"}) as container:
        stream = container.add_stream("libx264", rate=RATE, options={"g": "5", "tune": "zerolatency"})
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        for index in count():
            frame = av.VideoFrame.from_ndarray(picture(index % 256), format="bgr24")
            frame.pts = index
            container.mux(stream.encode(frame))
            after_each()
            if is_ended.wait(1 / RATE):
                return


def paced(indices: Iterable[int], size: tuple[int, int] = (48, 64)) -> Iterator[np.ndarray | float]:
    """Pictures of `media`, 25 in a second."""
    for index in indices:
        yield picture(index % 256, size)
        yield 1 / RATE


SDP = ("v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
       "a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track\r\n")


@contextmanager
def rtsp_server(requests: list[str]) -> Iterator[str]:
    """The address of a server that plays pictures of `media` as H.264 over RTSP, through the connection itself.

    Only one connection is served; what it asks for is appended to `requests`.
    """
    is_ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"rtsp://127.0.0.1:{server.getsockname()[1]}/live"

        def serve() -> None:
            with suppress(OSError, KeyError):
                connection, _ = server.accept()
                with connection, connection.makefile("rb") as lines:
                    while not requests or not requests[-1].startswith("PLAY"):
                        _answer(connection, lines, requests, address)
                    _play(connection, is_ended)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield address
        finally:
            is_ended.set()
            with suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)
            thread.join(10)


def _answer(connection: socket.socket, lines: Any, requests: list[str], address: str) -> None:
    requests.append(lines.readline().decode().strip())
    fields = {}
    while line := lines.readline().decode().strip():
        name, value = line.split(":", 1)
        fields[name.lower()] = value.strip()
    requests[-1] += f" {fields.get('transport', '')}".rstrip()
    method = requests[-1].split()[0]
    body = SDP if method == "DESCRIBE" else ""
    extra = {"DESCRIBE": f"Content-Type: application/sdp\r\nContent-Base: {address}/\r\n",
             "SETUP": "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n", "PLAY": "Session: 1\r\n",
             "OPTIONS": "Public: DESCRIBE, SETUP, PLAY\r\n"}.get(method, "")
    connection.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {fields['cseq']}\r\n{extra}Content-Length: {len(body)}\r\n\r\n{body}"
                       .encode())


def _play(connection: socket.socket, is_ended: threading.Event) -> None:
    """FFmpeg packs the pictures for UDP; this passes its packets on."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as packets:
        packets.bind(("127.0.0.1", 0))
        packets.setblocking(False)

        def forward() -> None:
            with suppress(BlockingIOError):
                while packet := packets.recv(65536):
                    connection.sendall(b"$\0" + len(packet).to_bytes(2, "big") + packet)

        _encode(f"rtp://127.0.0.1:{packets.getsockname()[1]}", "rtp", is_ended, forward)
