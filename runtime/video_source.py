"""Frames of a video file, decoded with PyAV."""
from __future__ import annotations

import itertools
import math
import mmap
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import av

from stmask_deploy.errors import InputError
from stmask_deploy.picture_file import is_cut_off

from .frame_source import Frame, FrameSource
from .upright import Orientation, orientation_of, pixel_aspect, upright
from .video_stream import DEFAULT_FPS, find_video_stream, frame_rate, reason

MAX_TIME_S = 1e9  # 30 years; later timestamps are damaged
MAX_FAILED_READS = 100  # in a row; after that the rest of the file counts as unreadable
SHORTFALL_S = 1.0  # a video without an index is truncated if it ends earlier than announced by more than this, or half
# Transport streams lose packets without an error. At a constant frame rate, gaps between timestamps reveal the loss:
HOLE_FRAMES = 1.5  # a gap that exceeds the usual one by more than this many frames is a hole
JITTER_FRAMES = 0.25  # a gap that differs from the usual one by more than this many frames is odd
ODD_SHARE, HOLE_SHARE = 0.05, 1 / 3  # of all gaps; if more are odd, or holes, the frame rate is not constant
STEADY_SHARE = 0.5  # of the holes; if more, and more than are odd, follow one as long, they are a second frame rate
# In these formats the duration is the end time of the last frame, whatever the start time. mkvmerge writes the length
# instead: there, a missing end no longer than the start time goes unnoticed.
END_TIME_FORMATS = ("matroska", "flv", "asf", "nut")
# Containers and raw streams only; no playlists or scripts, which make FFmpeg open other files.
FORMATS = ("mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,gif,apng,h264,hevc,av1,obu,ivf,m4v,mjpeg,mpjpeg,"
           "mxf,nut,dv,rm,wtv,yuv4mpegpipe")

GIF_EDGE = 4096  # bytes at the start and end of a GIF that tell whether it is whole


class VideoSource(FrameSource):
    """A video file. Undecodable packets are counted and skipped; rotations and reflections in metadata are applied.

    `time_s` is the presentation time since the start of the stream; a frame without one, or whose time does not
    increase, is placed 1 / fps after its predecessor; if the rate is not known, 1 / 30 s after it, or at the same time.
    The first frame is decoded on opening, so there is at least one.

    Raises:
        InputError: the file is not a video, or no frame of it can be decoded.
    """

    kind = "video"

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.name, self.files = path.name, (path,)
        self._container = _open_container(path)
        self._decoded = self._decode()
        try:
            self._stream = self._video_stream()
            self._num_packets = 0
            self._time_s = -math.inf  # of the latest frame
            self._end_s = 0.0  # when the latest frame ends
            self._gaps_ms: Counter[int] = Counter()  # from the end of a frame to the start of the next one
            self._steady_ms: Counter[int] = Counter()  # those of them that are as long as the one before
            self._gap_ms = 0  # the latest
            self._num_holes = 0
            self._orientation = Orientation()  # of the latest frame
            self._first = next(self._decoded, None)
            if self._first is None:
                raise InputError(f"{path} holds no frame that can be decoded ({self.damage}); "
                                 "check that it plays elsewhere, or convert it again")
            self._duration_s = _duration_s(self._container, self._stream, self._start_s or 0.0)
            self.num_frames = self._num_announced()
            self.pixel_aspect = pixel_aspect(self._stream, self._orientation)
        except BaseException:
            self.close()
            raise
        self.height, self.width = self._first.image.shape[:2]

    def _video_stream(self) -> Any:
        stream = find_video_stream(self._container, self.name)
        stream.thread_type = "AUTO"
        self._is_avi = self._container.format.name == "avi"
        self._is_mjpeg = self._container.format.name == "mjpeg"
        self._is_cut = self._container.format.name == "gif" and _is_cut_gif(self.files[0])
        is_stamped = stream.start_time is not None and not self._is_avi
        self._start_s = float(stream.start_time * stream.time_base) if is_stamped else None
        self.fps = frame_rate(stream)
        return stream

    def _num_announced(self) -> int | None:
        if self._is_avi:
            return _num_avi_packets(self._stream) or None
        if self.fps and self._duration_s:
            return round(self._duration_s * self.fps)
        return self._stream.frames or None

    def _frames(self) -> Iterator[Frame]:
        assert self._first is not None
        first, self._first = self._first, None
        yield first
        for frame in self._decoded:
            self._check_size(frame.image, f"frame {frame.index} of {self.name}")
            yield frame
        self._count(missing_frames=self._missing_frames(), packet_errors=int(self._is_cut))

    def _decode(self) -> Generator[Frame, None, None]:
        counter = itertools.count()
        for packet in self._packets():
            # Decoders fill what is missing of a picture; pictures in AVI and MOV often lack their end marker.
            broken = packet.is_corrupt or (self._is_mjpeg and is_cut_off(bytes(packet)))
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
                self._orientation = orientation_of(frame)
                yield Frame(next(counter), self._time_s, upright(frame, self._orientation))

    def _packets(self) -> Iterator[Any]:
        """Yield all packets of the stream and a final empty one to flush the decoder; skips unreadable parts."""
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
        last = av.Packet()
        last.stream = self._stream
        yield last

    def _advance(self, frame: av.VideoFrame) -> None:
        """Advance the clock to a frame's time."""
        stamp = frame.dts if self._is_avi else frame.pts  # AVI has no presentation times, but regular decoding times
        stamped_s = None if stamp is None or frame.time_base is None else float(stamp * frame.time_base)
        # With times but without a rate, a frame that seems not to come later must not move the clock ahead of the next.
        frame_s = 1 / self.fps if self.fps else 1 / DEFAULT_FPS if stamped_s is None else 0.0
        is_first = math.isinf(self._time_s)
        time_s = 0.0 if is_first else self._time_s + frame_s
        if stamped_s is not None:
            if self._start_s is None:
                self._start_s = stamped_s
            if self._time_s < stamped_s - self._start_s < MAX_TIME_S:
                time_s = stamped_s - self._start_s
        if self.fps and not is_first and "mpeg" in self._container.format.name:
            self._note_gap(time_s - self._end_s)
        self._time_s = time_s
        lasts_s = float(frame.duration * frame.time_base) if frame.duration and frame.time_base else frame_s
        self._end_s = time_s + lasts_s

    def _note_gap(self, gap_s: float) -> None:
        """Record a gap and update the number of holes, which drops to 0 if the rate turns out not to be constant."""
        assert self.fps
        gap_ms, frame_ms = round(gap_s * 1000), 1000 / self.fps
        if self._gaps_ms and abs(gap_ms - self._gap_ms) <= JITTER_FRAMES * frame_ms:
            self._steady_ms[gap_ms] += 1
        self._gaps_ms[gap_ms] += 1
        self._gap_ms = gap_ms
        num_holes = _num_holes(self._gaps_ms, self._steady_ms, frame_ms)
        self._count(packet_errors=num_holes - self._num_holes)
        self._num_holes = num_holes

    def _missing_frames(self) -> int:
        """Number of frames announced but not found: a truncated file often ends without any demuxer error."""
        indexed: int = len(self._stream.index_entries)
        if "mp4" in self._container.format.name:
            # `frames` also counts samples hidden by an edit list; the index does not.
            return max(0, indexed - self._num_packets)
        announced = _num_avi_packets(self._stream) if self._is_avi else max(indexed, int(self._stream.frames))
        missing = max(0, announced - self._num_packets)
        announced_s = self._duration_s or 0.0
        shortfall = announced_s - self._end_s
        if not missing and shortfall > min(SHORTFALL_S, announced_s / 2):
            missing = round(shortfall * (self.fps or 1.0))
        return missing

    def _release(self) -> None:
        self._container.close()
        # Unfinished, it refers to this source, and that to it: the decoder and its threads would stay until Python
        # looks for such circles. In a forked process, which has no threads, that would wait for them for ever.
        self._decoded.close()


def _open_container(path: Path) -> Any:
    try:
        # Without "file:", a colon in the name would be parsed as a protocol.
        return av.open(f"file:{path}", options={"format_whitelist": FORMATS})
    except PermissionError as error:
        raise InputError(f"{path} may not be read; check its permissions") from error
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be opened as a video ({reason(error)}): it is damaged, cut off or of another "
                         "kind; give a video file, an image, a folder of images or a camera number") from error


def _num_avi_packets(stream: Any) -> int:
    """Number of packets according to a complete index, if any: the header also counts dropped frames without packet."""
    entries = stream.index_entries
    is_whole = len(entries) > 0 and entries[len(entries) - 1].timestamp + 1 >= stream.frames
    return len(entries) if is_whole else max(len(entries), int(stream.frames))


def _num_holes(gaps_ms: Mapping[int, int], steady_ms: Mapping[int, int], frame_ms: float) -> int:
    """Number of unusually long gaps; 0 if the frame rate varies, where a long gap is no sign of damage.

    Args:
        gaps_ms: histogram of the gaps in ms from the end of a frame to the start of the next one.
        steady_ms: the same of those that are as long as the gap before.
        frame_ms: duration of a frame.
    """
    usual = max(gaps_ms, key=lambda gap: gaps_ms[gap])
    num_gaps = sum(gaps_ms.values())
    num_odd = sum(count for gap, count in gaps_ms.items() if abs(gap - usual) > JITTER_FRAMES * frame_ms)
    num_holes, num_steady = (sum(count for gap, count in histogram.items() if gap - usual > HOLE_FRAMES * frame_ms)
                             for histogram in (gaps_ms, steady_ms))
    has_second_rate = num_steady > max(STEADY_SHARE * num_holes, ODD_SHARE * num_gaps)
    is_constant = num_odd - num_holes <= ODD_SHARE * num_gaps and num_holes <= HOLE_SHARE * num_gaps
    return num_holes if is_constant and not has_second_rate else 0


def _duration_s(container: Any, stream: Any, start_s: float) -> float | None:
    """Duration of the video stream; None if the container does not state it separately from other streams."""
    announced_s = _announced_s(container, stream)
    if announced_s and container.format.name.startswith(END_TIME_FORMATS) and announced_s > start_s:
        return announced_s - start_s
    return announced_s


def _announced_s(container: Any, stream: Any) -> float | None:
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


def _is_cut_gif(path: Path) -> bool:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return is_cut_off(data[:GIF_EDGE] + data[-GIF_EDGE:])
