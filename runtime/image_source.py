"""Frames from image files: a folder in natural order, or a single picture."""
from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from stmask_deploy.errors import InputError
from stmask_deploy.picture_file import num_pictures, read_picture

from .frame_source import Frame, FrameSource, SourceKind

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff")

_LOGGER = logging.getLogger(__name__)


class ImageSource(FrameSource):
    """Image files as frames. Unreadable files are counted and skipped; they still take up a frame index.

    Files are decoded to 8-bit BGR, with their EXIF orientation applied. `time_s` is index / fps. Of an animation or of
    several pages only the first picture is read; for a single image a warning says so.

    Args:
        paths: the files, in order.
        kind: "folder" or "image".
        name: short name of the source.
        fps: frame rate assigned to the images; None for a single image, whose time is 0.

    Raises:
        InputError: no file can be read.
    """

    def __init__(self, paths: Sequence[Path], kind: SourceKind, name: str, fps: float | None) -> None:
        super().__init__()
        self.kind = kind
        self.name, self.files = name, tuple(paths)
        self.fps = fps
        self.num_frames = len(paths)
        self._decoded = self._decode(paths)
        self._first = next(self._decoded, None)
        if self._first is None:
            some = "its only image" if len(paths) == 1 else f"any of its {len(paths)} images"
            what = "it" if kind == "image" else some
            raise InputError(f"{name}: cannot read {what}{_refusal(paths[0])}")
        self.height, self.width = self._first[1].image.shape[:2]
        if kind == "image" and (count := num_pictures(paths[0])) > 1:
            _LOGGER.warning("%s holds %d pictures, of which only the first is read; save them as files in a folder, or "
                            "as a video", name, count)

    def _decode(self, paths: Sequence[Path]) -> Iterator[tuple[Path, Frame]]:
        for index, path in enumerate(paths):
            image = read_picture(path)
            if image is None:
                self._count_unreadable(path.name)
                continue
            yield path, Frame(index, index / self.fps if self.fps else 0.0, image)

    def _frames(self) -> Iterator[Frame]:
        assert self._first is not None
        yield self._first[1]
        self._first = None
        for path, frame in self._decoded:
            self._check_size(frame.image, path.name)
            yield frame

    def _release(self) -> None:
        self._decoded.close()  # type: ignore[attr-defined]


def _refusal(path: Path) -> str:
    """Why an image cannot be read and what to do about it, as the end of an error message."""
    try:
        with open(path, "rb") as file:
            file.read(1)
    except PermissionError:
        return ", permission denied; check its permissions"
    except OSError as error:
        return f" ({error.strerror}); check the disk, or copy it again"
    return "; check that the pictures open elsewhere, or convert them; the limit is 134 million pixels"


def list_images(folder: Path) -> list[Path]:
    """The image files directly inside a folder, without hidden ones, in natural order (frame2 before frame10).

    Raises:
        InputError: the folder cannot be listed or has no images.
    """
    try:
        paths = [path for path in folder.iterdir()
                 if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()]
    except OSError as error:
        raise InputError(f"{folder} cannot be listed ({error.strerror}); check its permissions") from error
    if not paths:
        raise InputError(f"{folder} has no images ({', '.join(suffix[1:] for suffix in IMAGE_SUFFIXES)}); "
                         "give the folder that holds the frames themselves")
    return sorted(paths, key=lambda path: natural_key(path.name))


def natural_key(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Sort key that compares runs of digits as numbers and ignores case and suffix; the full name breaks ties."""
    parts = re.split(r"(\d+)", Path(name).stem.casefold())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts if part], name
