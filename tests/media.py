"""Pictures and small video files for the tests of everything that reads or writes them."""
from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

NUM_FRAMES = 90
SIZE = (48, 64)  # height, width


def picture(index: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """(H, W, 3): a grey ground with a red corner, `index` as eight black or white cells, and detail that moves."""
    height, width = size
    image = np.full((height, width, 3), 110, np.uint8)
    detail = np.random.default_rng(7).integers(80, 140, (height, width + 2 * index, 1))[:, -width:]
    image[height // 2:] = detail[height // 2:]
    for bit in range(8):
        image[height // 4:height // 2, bit * width // 8:(bit + 1) * width // 8] = 220 if index >> bit & 1 else 20
    image[:height // 4, :width // 4] = (30, 30, 220)
    return image


def pictures(count: int = NUM_FRAMES, size: tuple[int, int] = SIZE) -> list[np.ndarray]:
    return [picture(index, size) for index in range(count)]


def shown_index(image: np.ndarray) -> int:
    """Which frame of `pictures` it is, compressed or not."""
    height, width = image.shape[:2]
    cells = image[height // 4 + 2:height // 2 - 2].mean(axis=(0, 2)).reshape(8, width // 8).mean(axis=1)
    return sum(1 << bit for bit, cell in enumerate(cells) if cell > 110)


def write_video(path: Path, images: Sequence[np.ndarray], *, fps: int = 30, times: Sequence[float] | None = None,
                rotation: int = 0, movflags: str | None = None, gop: int = 15) -> Path:
    """Write a video of its container's kind with PyAV alone, B-frames included."""
    with av.open(str(path), "w", options={"movflags": movflags} if movflags else {}) as container:
        stream = container.add_stream("libx264", rate=fps, options={"g": str(gop), "crf": "16"})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000) if times else Fraction(1, fps)
        if rotation:
            stream.set_display_rotation(rotation)
        for index, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts = round(1000 * times[index]) if times else index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_coded(path: Path, stamps: Sequence[int], codec: str, rate: int | Fraction, pixels: str = "yuv420p",
                aspect: Fraction | None = None, rotation: int = 0, **options: str) -> Path:
    """Pictures at `stamps` / rate seconds."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        (stream.height, stream.width), stream.pix_fmt = SIZE, pixels
        stream.codec_context.sample_aspect_ratio = aspect or Fraction(0)  # 0: unknown
        if rotation:
            stream.set_display_rotation(rotation)
        for index, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(picture(index), format="bgr24").reformat(format=pixels)
            frame.pts, frame.time_base = stamp, 1 / Fraction(rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_image(path: Path, image: np.ndarray | None = None) -> Path:
    good, data = cv2.imencode(path.suffix, picture() if image is None else image)
    assert good
    path.write_bytes(data.tobytes())
    return path


def zeroed(path: Path, source: Path, position: float, num_bytes: int = 1500) -> Path:
    """A copy of a file with zeros from `position` (a share of its length) on."""
    data = bytearray(source.read_bytes())
    start = int(len(data) * position)
    data[start:start + num_bytes] = bytes(min(num_bytes, len(data) - start))
    path.write_bytes(data)
    return path


def cut(path: Path, source: Path, share: float) -> Path:
    """A copy of the first part of a file."""
    data = source.read_bytes()
    path.write_bytes(data[:int(len(data) * share)])
    return path
