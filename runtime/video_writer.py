"""Annotated video: H.264 in mp4, playable in browsers."""
from __future__ import annotations

from contextlib import nullcontext, suppress
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import cv2
import numpy as np
from av.codec.codec import UnknownCodecError
from av.video.reformatter import ColorRange, Colorspace

from stmask_deploy.atomic import cannot_write, check_writable
from stmask_deploy.errors import OutputError

from .frame_source import Image
from .video_stream import DEFAULT_FPS

TIME_BASE = Fraction(1, 90000)  # divides the usual frame rates evenly, 30000/1001 included
MAX_STEP = 6 * 3600 * 90000  # ticks from frame to frame: FFmpeg loses times in mp4 behind a gap of 2^31, 6.6 hours
MAX_SIDE = 16384  # pixels, of H.264
SQUARE = Fraction(1)
KEYFRAME_INTERVAL_S = 1.0  # plus the encoder's look-ahead, also the most that a killed run can lose
BT709 = 1  # colour primaries and transfer in FFmpeg's numbering; PyAV only has names for the matrix

# Every group of pictures is written and flushed as a fragment, so a killed run leaves a playable file; a clean close
# turns the same file into an ordinary indexed mp4 without rewriting the pictures.
CONTAINER_OPTIONS = {"movflags": "hybrid_fragmented+frag_keyframe+empty_moov+default_base_moof", "flush_packets": "1"}
# Without `cpu-independent`, x264's assembly reads memory that it has not written: at some sizes, files would differ.
CODEC_OPTIONS = {"preset": "veryfast", "crf": "20", "bf": "0", "x264-params": "cpu-independent=1"}


class VideoWriter:
    """Context manager that writes BGR frames as H.264, yuv420p, BT.709.

    The file is opened on the first frame, which determines the video's size. Odd sizes are padded to even ones by
    repeating the last column or row, because yuv420p has one colour sample per 2x2 pixels.

    Args:
        path: the mp4 file.
        fps: frame rate of frames written without a time, and the nominal rate for the encoder; None is 30.
        pixel_aspect: width / height of a pixel, by which players stretch the picture.

    Raises:
        OutputError: the file exists, or it cannot be written.
    """

    def __init__(self, path: Path, fps: float | None = None, pixel_aspect: Fraction = SQUARE) -> None:
        check_writable(path, overwrite=False)
        self._path = path
        self._fps = fps or DEFAULT_FPS
        self._pixel_aspect = pixel_aspect
        self._frame_ticks = min(MAX_STEP, max(1, round(1 / (self._fps * TIME_BASE))))
        self._container: Any = None
        self._stream: Any = None
        self._pts = -self._frame_ticks
        self._is_closed = False

    def write(self, image: Image, time_s: float | None = None) -> None:
        """Append a frame.

        Args:
            image: (H, W, 3) uint8 BGR.
            time_s: presentation time. If None, or not after the previous frame's, the frame is shown 1 / fps after the
                previous one.

        Raises:
            OutputError: the file cannot be written, or is closed.
        """
        if self._is_closed:
            raise OutputError(f"{self._path} is closed already; open another video for more frames")
        height, width = (side + side % 2 for side in image.shape[:2])
        try:
            if self._container is None:
                self._open(height, width)
            assert (height, width) == (self._stream.height, self._stream.width), "all frames have the first one's size"
            even = cv2.copyMakeBorder(image, 0, height - image.shape[0], 0, width - image.shape[1],
                                      cv2.BORDER_REPLICATE)
            self._mux(self._to_yuv(np.asarray(even, np.uint8), time_s))
        except (OSError, av.FFmpegError, UnknownCodecError) as error:
            self._abandon()
            raise _output_error(self._path, error) from error

    def _open(self, height: int, width: int) -> None:
        self._container = av.open(f"file:{self._path}", "w", format="mp4", options=CONTAINER_OPTIONS)
        interval = max(1, round(self._fps * KEYFRAME_INTERVAL_S))
        stream = self._container.add_stream("libx264", rate=Fraction(self._fps).limit_denominator(1001),
                                            options={**CODEC_OPTIONS, "g": str(interval)})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        context = stream.codec_context
        context.time_base = TIME_BASE
        if self._pixel_aspect != SQUARE:
            context.sample_aspect_ratio = self._pixel_aspect
        context.color_primaries = context.color_trc = BT709
        context.colorspace = Colorspace.ITU709
        context.color_range = ColorRange.MPEG
        self._stream = stream

    def _to_yuv(self, image: Image, time_s: float | None) -> av.VideoFrame:
        frame = av.VideoFrame.from_ndarray(image, format="bgr24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)
        following = self._pts + self._frame_ticks
        pts = following if time_s is None else round(time_s / TIME_BASE)
        self._pts = min(pts if pts > self._pts else following, self._pts + MAX_STEP)
        frame.pts, frame.time_base = self._pts, TIME_BASE
        return frame

    def _mux(self, frame: av.VideoFrame | None) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    def close(self) -> None:
        """Finish the file; if no frame was written, there is none.

        Raises:
            OutputError: the remaining data cannot be written.
        """
        try:
            if self._container is not None:
                if self._stream is not None:
                    self._mux(None)
                self._container.close()
        except (OSError, av.FFmpegError) as error:
            raise _output_error(self._path, error) from error
        finally:
            self._abandon()

    def _abandon(self) -> None:
        self._is_closed = True
        container, self._container = self._container, None
        if container is not None:
            with suppress(OSError, av.FFmpegError):
                container.close()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        # If another file failed, this one is still completed, and its own failure does not mask the first.
        with suppress(OutputError) if isinstance(error, OutputError) else nullcontext():
            self.close()


def check_size(height: int, width: int) -> None:
    """Raise OutputError if frames of this size, in pixels, cannot be written."""
    if max(height, width) > MAX_SIDE:
        raise OutputError(f"frames of {width}x{height} do not fit into an H.264 video, which holds at most {MAX_SIDE} "
                          "pixels a side; leave it out with --no-video")


def _output_error(path: Path, error: Exception) -> OutputError:
    if isinstance(error, OSError):
        return cannot_write(path, error)
    return OutputError(f"{path} cannot be encoded ({error}); PyAV needs libx264: install the `av` wheel, or leave the "
                       "video out with --no-video")
