"""The video stream of an opened container."""
from __future__ import annotations

from typing import Any

import av

from stmask_deploy.config import MAX_PIXELS
from stmask_deploy.errors import InputError

MAX_FPS = 1000
DEFAULT_FPS = 30.0  # of videos that announce none
PICTURE_BRANDS = {"mif1", "mif2", "msf1", "miaf", "heic", "avif"}  # pictures in a video's container


def find_video_stream(container: Any, name: str) -> Any:
    """The stream of moving pictures that the file marks as its default, or else the first.

    Args:
        container: opened with PyAV.
        name: of the source, for messages.

    Raises:
        InputError: there is none, its codec is unknown, its frames are too large, or it is one picture's tile.
    """
    kinds = av.stream.Disposition
    streams = [stream for stream in container.streams.video if not stream.disposition & kinds.attached_pic]
    # What depends on another stream is a tile, or an enhancement of a video, which stands for itself.
    whole = [stream for stream in streams if not stream.disposition & kinds.dependent]
    if len(whole) < len(streams) and (not whole or _brands(container) & PICTURE_BRANDS):
        raise InputError(f"{name} is a picture made of tiles, which are not put together here; "
                         "convert it, for instance to JPEG")
    streams = sorted(whole, key=lambda stream: not stream.disposition & kinds.default)
    if not streams:
        raise InputError(f"{name} has no video stream; give a file with pictures in it")
    stream = next((stream for stream in streams if stream.codec_context is not None), None)
    if stream is None:
        raise InputError(f"{name}: its video codec is not known here; convert it, for instance to H.264")
    context = stream.codec_context
    if context.width * context.height > MAX_PIXELS:
        raise InputError(f"{name} announces frames of {context.width}x{context.height}, more than "
                         f"{MAX_PIXELS} pixels; rescale the video first")
    return stream


def _brands(container: Any) -> set[str]:
    """The kinds of ISO media file that a container says it is, four letters each."""
    text = container.metadata.get("major_brand", "").ljust(4) + container.metadata.get("compatible_brands", "")
    return {text[start:start + 4] for start in range(0, len(text), 4)}


def frame_rate(stream: Any) -> float | None:
    """Frames per second as announced, None if nothing plausible is."""
    rate = stream.average_rate or stream.guessed_rate
    return float(rate) if rate and 0 < rate <= MAX_FPS else None


def reason(error: Exception) -> str:
    """Why a container could not be opened, in FFmpeg's words."""
    return str(getattr(error, "strerror", None) or error)
