"""Pictures and small video files for the tests of everything that reads or writes them."""
from __future__ import annotations

import io
import struct
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


def write_heic(path: Path, image: np.ndarray, tiles: int) -> Path:
    """A picture as HEIF (ISO/IEC 23008-12), cut into `tiles` x `tiles` coded pictures and a grid item if more than one.

    Every item is an HEVC picture with the same decoder configuration; the grid derives the whole from them.
    """
    height, width = (size // tiles for size in image.shape[:2])
    parts = [image[row * height:(row + 1) * height, column * width:(column + 1) * width]
             for row in range(tiles) for column in range(tiles)]
    coded = [_hevc(part) for part in parts]
    items = [(b"hvc1", data) for _, data in coded]
    properties = coded[0][0] + _full_box(b"ispe", 0, struct.pack(">II", width, height))
    links = [struct.pack(">HBBB", number, 2, 0x81, 2) for number in range(1, len(items) + 1)]
    references = b""
    if tiles > 1:
        items.append((b"grid", struct.pack(">BBBBHH", 0, 0, tiles - 1, tiles - 1, *image.shape[1::-1])))
        properties += _full_box(b"ispe", 0, struct.pack(">II", *image.shape[1::-1]))
        links.append(struct.pack(">HBB", len(items), 1, 3))
        sources = struct.pack(f">HH{len(coded)}H", len(items), len(coded), *range(1, len(coded) + 1))
        references = _full_box(b"iref", 0, _box(b"dimg", sources))

    def meta(start: int) -> bytes:
        places, infos = b"", b""
        for number, (kind, data) in enumerate(items, start=1):
            places += struct.pack(">HHHII", number, 0, 1, start, len(data))
            infos += _full_box(b"infe", 2, struct.pack(">HH", number, 0) + kind + b"\0")
            start += len(data)
        count = struct.pack(">H", len(items))
        return _full_box(
            b"meta", 0, _full_box(b"hdlr", 0, bytes(4) + b"pict" + bytes(13)) + _full_box(b"pitm", 0, count)
            + _full_box(b"iloc", 0, b"\x44\0" + count + places) + _full_box(b"iinf", 0, count + infos) + references
            + _box(b"iprp", _box(b"ipco", properties)
                   + _full_box(b"ipma", 0, struct.pack(">I", len(links)) + b"".join(links))))

    kind = _box(b"ftyp", b"heic" + bytes(4) + b"mif1heic")
    path.write_bytes(kind + meta(len(kind) + len(meta(0)) + 8) + _box(b"mdat", b"".join(data for _, data in items)))
    return path


def _hevc(image: np.ndarray) -> tuple[bytes, bytes]:
    """A picture coded by HEVC: the box of the decoder's configuration, and the data."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx265", rate=1, options={"x265-params": "log-level=none:keyint=1"})
        (stream.height, stream.width), stream.pix_fmt = image.shape[:2], "yuv420p"
        stream.codec_context.codec_tag = "hvc1"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="bgr24").reformat(format="yuv420p")
        for packet in (*stream.encode(frame), *stream.encode(None)):
            container.mux(packet)
    data = buffer.getvalue()

    def found(kind: bytes) -> bytes:
        start = data.index(kind) - 4
        return data[start:start + int.from_bytes(data[start:start + 4], "big")]

    return found(b"hvcC"), found(b"mdat")[8:]


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def _full_box(kind: bytes, version: int, content: bytes) -> bytes:
    return _box(kind, struct.pack(">I", version << 24) + content)
