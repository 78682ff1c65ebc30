"""One connection to a network stream."""
from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from fractions import Fraction
from typing import Any

import av

from stmask_deploy.errors import InputError
from stmask_deploy.picture_file import is_cut_off

from .frame_source import Image
from .stream_pace import Pace
from .upright import orientation_of, pixel_aspect, upright
from .video_stream import find_video_stream, frame_rate, reason

OPEN_S = 15.0  # time to connect
FIRST_S = 60.0  # time to the first picture: cameras may send one that needs no other only once a minute
SILENT_S = 10.0  # a connection without a picture for so long is lost
MAX_FAILED_READS = 100  # in a row
OPTIONS = {
    "analyzeduration": "1000000",  # us; what is read to find out about the streams is old when it is decoded
    "rtsp_flags": "prefer_tcp",  # packets of UDP get lost, or are stopped by a firewall
    # What an address may lead to: FFmpeg would also open local files that a playlist names.
    "protocol_whitelist": "rtsp,rtsps,rtp,srtp,rtmp,rtmps,http,https,httpproxy,tls,tcp,udp,crypto",
    "format_whitelist": "rtsp,rtp,sdp,flv,live_flv,mpegts,mpeg,hls,mjpeg,mpjpeg,matroska,webm,mov,ogg,nut,h264,hevc,"
                        "av1,obu,ivf,m4v,aac,mp3",
}


class PlaylistEndError(InputError):
    """A playlist says that nothing will follow."""


class StreamConnection:
    """A connection that has delivered its first picture. All methods must be called from one thread.

    Attributes:
        fps: frames per second as announced, None if nothing plausible is.
        pixel_aspect: width / height of a pixel as displayed.

    Raises:
        InputError: the address cannot be reached, no picture comes from it, or it has an end.
    """

    def __init__(self, address: str, name: str, note: Callable[..., None],
                 wait: Callable[[float], object] = time.sleep) -> None:
        """Connect.

        Args:
            address: as given, perhaps with a password.
            name: the same for messages.
            note: called with counts of damage after the first picture; before it a stream that is joined midway always
                has some.
            wait: waits for so many seconds, or less if the connection is about to be closed.
        """
        self._note, self._wait = note, wait
        self._decoded = self._decode()
        start_s = time.monotonic()
        try:
            self._container = av.open(address, options=OPTIONS, timeout=(OPEN_S, SILENT_S))
        except (av.FFmpegError, OSError, ValueError) as error:
            # Not chained: its text holds the address with the password.
            why = reason(error)
            if time.monotonic() - start_s >= OPEN_S:  # which each protocol reports as another error
                why = f"no answer within {OPEN_S:g} s"
            raise InputError(f"{name} cannot be opened ({why}); check that the address is a video "
                             "stream's, and that the stream is on") from None
        try:
            self._stream = find_video_stream(self._container, name)
            # Threads for whole frames would hold back as many frames as there are threads.
            self._stream.thread_type = "SLICE"
            self._check_endless(name)
            kind = self._container.format.name
            self._pace = Pace() if kind == "hls" else None  # pieces arrive as fast as the line allows
            self._is_mjpeg = kind in ("mjpeg", "mpjpeg")
            self.fps = None if self._is_mjpeg else frame_rate(self._stream)  # it announces none; FFmpeg then says 25
            self._has_picture = False
            self._picture_s = time.monotonic()  # when the latest one came
            self._patience_s = FIRST_S  # how long to wait for the next one
            self._first = next(self._decoded, None)
            if self._first is None:
                raise InputError(f"{name} gives no picture that can be decoded; check that it plays elsewhere, and "
                                 "that key frames are not minutes apart")
            self._has_picture = True
        except BaseException:
            self.close()
            raise

    def _check_endless(self, name: str) -> None:
        """A recording over HTTP comes as fast as the line allows, so most of its frames would be skipped."""
        kind = self._container.format.name
        if not name.startswith("http") or kind == "mpjpeg":  # some cameras announce a size that means nothing
            return
        # FFmpeg takes the first piece of a live MP4 for all of it. A playlist has a size of its own.
        has_end = bool(self._container.duration) and "mp4" not in kind
        size = self._container.size or 0  # not known: None from PyAV 19 on, earlier below 0
        if has_end or (size > 0 and kind != "hls"):
            error = PlaylistEndError if kind == "hls" else InputError
            raise error(f"{name} is a recording, not a live stream; download it and give the file")

    def pictures(self) -> Iterator[Image]:
        """Upright pictures, until the stream ends or is silent for `SILENT_S`."""
        assert self._first is not None
        yield self._first
        self._first = None
        yield from self._decoded

    def _decode(self) -> Generator[Image, None, None]:
        for packet in self._packets():
            # Decoders fill what is missing of a picture.
            # Pieces of HLS arrive whole, but where each was written on its own, a piece seems to have lost something.
            has_lost = packet.is_corrupt and self._pace is None
            broken = has_lost or (self._is_mjpeg and is_cut_off(bytes(packet)))
            pictures: list[tuple[Image, float | None]] = []
            try:
                for frame in packet.decode():
                    self._count(corrupt_frames=int(frame.is_corrupt))
                    orientation = orientation_of(frame)
                    self.pixel_aspect: Fraction = pixel_aspect(self._stream, orientation)
                    pictures.append((upright(frame, orientation), frame.time))
            except av.FFmpegError:
                broken = True
            self._count(packet_errors=int(broken))
            for image, time_s in pictures:
                self._keep_pace(time_s)
                self._picture_s, self._patience_s = time.monotonic(), SILENT_S
                yield image

    def _keep_pace(self, time_s: float | None) -> None:
        if self._pace is not None and time_s is not None:
            self._wait(self._pace.wait_s(time_s, time.monotonic()))

    def _packets(self) -> Iterator[Any]:
        packets = self._container.demux()  # of all streams: where sound goes on, no read takes long
        failed = 0
        while failed < MAX_FAILED_READS and time.monotonic() - self._picture_s < self._patience_s:
            try:
                packet = next(packets, None)
            except av.error.InvalidDataError:
                self._count(packet_errors=1)
                failed += 1
                packets = self._container.demux()
                continue
            except (av.FFmpegError, OSError):
                return
            if packet is None:
                return
            failed = 0
            if packet.stream is self._stream:
                yield packet

    def _count(self, **counts: int) -> None:
        if self._has_picture:
            self._note(**counts)

    def close(self) -> None:
        """Disconnect; idempotent."""
        with suppress(av.FFmpegError):
            self._container.close()
        self._decoded.close()  # as in `VideoSource`
