"""Frames of a network stream, such as an IP camera's."""
from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator

import av
import cv2
import numpy as np

from stmask_deploy.errors import InputError

from .frame_source import Image
from .live_source import LiveSource
from .stream_address import public_address
from .stream_connection import PlaylistEndError, StreamConnection

_LOG = logging.getLogger(__name__)

SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "rtp", "tcp")
FIRST_RETRY_S, MAX_RETRY_S = 0.5, 4.0  # waiting before connecting again; doubles
GIVE_UP_S = 600.0  # after so long without a connection the source ends


class StreamSource(LiveSource):
    """A network stream, by address: RTSP, RTMP, MJPEG or HLS over HTTP, transport streams over UDP or TCP.

    When the connection is lost, or gives no picture for ten seconds, this is counted, and the source connects again,
    for up to ten minutes; both are logged as warnings. Meanwhile frames wait. If pictures have another size afterwards,
    they are resized to the first. Where a playlist then says that nothing will follow, the stream was not lost but has
    ended.

    Raises:
        InputError: the address cannot be reached, holds no video, or is a recording.
    """

    kind = "stream"

    def __init__(self, address: str, is_stopped: Callable[[], bool] | None = None) -> None:
        super().__init__(public_address(address))
        if self.name.partition(":")[0] not in SCHEMES:
            raise InputError(f"{self.name} is an address of a kind that cannot be read; known are {', '.join(SCHEMES)}")
        self._address = address[:address.index(":")].lower() + address[address.index(":"):]
        self._connection: StreamConnection | None = None
        if is_stopped is not None:
            self.stop_when(is_stopped)
        self._start()

    def _pictures(self) -> Iterator[Image]:
        first = self._connect()
        self.fps, self.pixel_aspect = first.fps, first.pixel_aspect
        connection: StreamConnection | None = first
        size = None
        while connection is not None:
            for image in connection.pictures():
                size = size or image.shape[1::-1]
                yield image if image.shape[1::-1] == size else _resized(image, size)
            self._disconnect()
            self._note(lost_connections=1)  # before the search, which may be the last that happens
            try:
                connection = self._connect_again()
            except PlaylistEndError:
                self._note(lost_connections=-1)
                _LOG.warning("%s has ended", self.name)
                return

    def _connect(self) -> StreamConnection:
        self._connection = StreamConnection(self._address, self.name, self._note, self._is_ending.wait)
        return self._connection

    def _connect_again(self) -> StreamConnection | None:
        """None if that is not possible within `GIVE_UP_S`, or the source is closed.

        Raises:
            PlaylistEndError: the stream has ended.
        """
        if not self._is_ending.is_set():
            _LOG.warning("%s is lost; connecting again", self.name)
        lost_s, wait_s = time.monotonic(), FIRST_RETRY_S
        while not self._is_ending.wait(wait_s):
            try:
                connection = self._connect()
            except PlaylistEndError:
                raise
            except (InputError, av.FFmpegError):
                pass
            else:
                _LOG.warning("%s is back after %.0f s", self.name, time.monotonic() - lost_s)
                return connection
            if time.monotonic() - lost_s >= GIVE_UP_S:
                _LOG.warning("%s did not come back within %.0f s", self.name, GIVE_UP_S)
                break
            wait_s = min(2 * wait_s, MAX_RETRY_S)
        return None

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _resized(image: Image, size: tuple[int, ...]) -> Image:
    return np.asarray(cv2.resize(image, size[:2], interpolation=cv2.INTER_AREA), np.uint8)
