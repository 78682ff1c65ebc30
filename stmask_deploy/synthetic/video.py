"""Writes a clip as a video file."""
from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import av

from stmask_deploy.atomic import cannot_write

from .arrays import Image

FPS = 24
QUALITY = 20  # x264's constant rate factor: comparable to a good camera


def write_video(path: Path, frames: Iterable[Image]) -> None:
    """Write (H, W, 3) BGR frames of one size, sides even, as H.264 in mp4.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        with av.open(f"file:{path}", "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=FPS, options={
                "crf": str(QUALITY), "preset": "slow",
                "x264-params": "cpu-independent=1"})  # else its assembly reads memory that it has not written
            stream.pix_fmt = "yuv420p"
            stream.codec_context.thread_count = 1  # so that the file is the same on every machine
            for index, frame in enumerate(frames):
                if index == 0:
                    stream.height, stream.width = frame.shape[:2]
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
            container.mux(stream.encode())
    except OSError as error:
        raise cannot_write(path, error) from error
