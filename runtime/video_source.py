"""Frames of a video file, decoded with PyAV."""
from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from stmask_deploy.errors import InputError

from .frame_source import Frame, FrameSource, Image

MAX_PIXELS = 8192 * 8192  # larger frames are refused before they are decoded: a broken header can claim anything
MAX_FAILED_READS = 100  # in a row; then the rest of the file counts as unreadable
SHORTFALL_S = 1.0  # a video without an index that ends earlier than announced by more than this lacks its end
HOLE_FRAMES = 2.5  # a longer step of a transport stream's clock is a hole: it loses packets without an error
# Containers and raw streams only: playlists and scripts, which make FFmpeg open other files, stay out.
FORMATS = ("mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,apng,h264,hevc,av1,obu,ivf,m4v,mjpeg,mpjpeg,"
           "mxf,nut,dv,rm,wtv,yuv4mpegpipe")
ROTATIONS = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}


class VideoSource(FrameSource):
    """A video file. Undecodable packets are counted and skipped; rotation metadata is applied.

    `time_s` is the presentation time since the start of the stream; a frame without one, or whose time does not grow,
    follows its predecessor by 1 / fps. The first frame is decoded on opening, so a source that opens has at least one.

    Raises:
        InputError: the file is not a video, or no frame of it can be decoded.
    """

    kind = "video"

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.name = path.name
        self._container = _open_container(path)
        try:
            self._stream = self._video_stream()
            self._num_packets = 0
            self._time_s = -math.inf  # of the latest frame
            self._end_s = 0.0  # when the latest frame ends
            self._decoded = self._decode()
            self._first = next(self._decoded, None)
            if self._first is None:
                raise InputError(f"{path} holds no frame that can be decoded ({self.damage}); "
                                 "check that it plays elsewhere, or convert it again")
        except BaseException:
            self.close()
            raise
        self.height, self.width = self._first.image.shape[:2]

    def _video_stream(self) -> Any:
        streams = [stream for stream in self._container.streams.video
                   if not stream.disposition & av.stream.Disposition.attached_pic]
        if not streams:
            raise InputError(f"{self.name} has no video stream; give a file with pictures in it")
        stream = streams[0]
        context = stream.codec_context
        if context.width * context.height > MAX_PIXELS:
            raise InputError(f"{self.name} announces frames of {context.width}x{context.height}, more than "
                             f"{MAX_PIXELS} pixels; rescale the video first")
        stream.thread_type = "AUTO"
        self._is_avi = self._container.format.name == "avi"
        is_stamped = stream.start_time is not None and not self._is_avi
        self._start_s = float(stream.start_time * stream.time_base) if is_stamped else None
        rate = stream.average_rate or stream.guessed_rate
        self.fps = float(rate) if rate and 0 < rate <= 1000 else None
        self._duration_s = _duration_s(self._container, stream)
        if self.fps and self._duration_s:
            self.num_frames = round(self._duration_s * self.fps)
        else:
            self.num_frames = stream.frames or None
        return stream

    def _frames(self) -> Iterator[Frame]:
        assert self._first is not None
        first, self._first = self._first, None
        yield first
        for frame in self._decoded:
            self._check_size(frame.image, f"frame {frame.index} of {self.name}")
            yield frame
        self._count(missing_frames=self._missing_frames())

    def _decode(self) -> Iterator[Frame]:
        counter = itertools.count()
        for packet in self._packets():
            broken = packet.is_corrupt
            decoded: list[av.VideoFrame] = []
            try:
                decoded = packet.decode()
            except av.FFmpegError:
                broken = True
            if broken:
                self._count(packet_errors=1)
            for frame in decoded:
                if frame.is_corrupt:
                    self._count(corrupt_frames=1)
                self._advance(frame)
                yield Frame(next(counter), self._time_s, _upright(frame))

    def _packets(self) -> Iterator[Any]:
        """Every packet of the stream, the empty one that flushes the decoder included, over unreadable places."""
        packets = self._container.demux(self._stream)
        failed = 0
        while failed < MAX_FAILED_READS:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except av.FFmpegError:
                self._count(packet_errors=1)
                failed += 1
                packets = self._container.demux(self._stream)
                continue
            failed = 0
            self._num_packets += bool(packet.size)
            yield packet

    def _advance(self, frame: av.VideoFrame) -> None:
        """Move the clock to a frame's time, and count a hole before it."""
        stamp = frame.dts if self._is_avi else frame.pts  # AVI has no presentation times; its decoding times are even
        time_s = self._end_s
        if stamp is not None and frame.time_base is not None:
            stamped_s = float(stamp * frame.time_base)
            if self._start_s is None:
                self._start_s = stamped_s
            if stamped_s - self._start_s > self._time_s:
                time_s = stamped_s - self._start_s
        step = (time_s - self._end_s) * (self.fps or 0.0)
        if self._end_s and "mpeg" in self._container.format.name and step > HOLE_FRAMES - 1:
            self._count(packet_errors=1)
        self._time_s = time_s
        self._end_s = time_s + (1 / self.fps if self.fps else 0.0)

    def _missing_frames(self) -> int:
        """Frames announced but not there: a cut file often ends without any error from the demuxer."""
        indexed: int = len(self._stream.index_entries)
        if "mp4" in self._container.format.name:
            # Its `frames` counts samples that an edit list hides as well; the index leaves those out.
            return max(0, indexed - self._num_packets)
        missing = max(0, max(indexed, int(self._stream.frames)) - self._num_packets)
        shortfall = (self._duration_s or 0.0) - self._end_s
        if not missing and shortfall > SHORTFALL_S:
            missing = round(shortfall * (self.fps or 1.0))
        return missing

    def close(self) -> None:
        self._container.close()


def _open_container(path: Path) -> Any:
    try:
        # "file:" keeps a colon in the name from being read as a protocol.
        return av.open(f"file:{path}", options={"format_whitelist": FORMATS})
    except PermissionError as error:
        raise InputError(f"{path} may not be read; check its permissions") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be opened as a video ({_reason(error)}): it is damaged, cut off or of another "
                         "kind; give a video file, an image, a folder of images or a camera number") from error


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


def _duration_s(container: Any, stream: Any) -> float | None:
    """Length of the video stream, as far as the container tells it apart from sound."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    tag = stream.metadata.get("DURATION", "")  # Matroska: hours:minutes:seconds
    try:
        hours, minutes, seconds = tag.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    except ValueError:
        pass
    if container.duration and len(container.streams) == 1:
        return float(container.duration / av.time_base)
    return None


def _upright(frame: av.VideoFrame) -> Image:
    """(H, W, 3) uint8 BGR, turned as the display matrix says (whole quarter turns)."""
    image = np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)
    turn = ROTATIONS.get(round(frame.rotation / 90) % 4)
    return np.ascontiguousarray(image) if turn is None else np.asarray(cv2.rotate(image, turn), np.uint8)
