"""What every frame source provides: frames in order, and counts of what could not be read."""
from __future__ import annotations

import dataclasses
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from stmask_deploy.errors import InputError

Image = NDArray[np.uint8]
SourceKind = Literal["video", "folder", "image", "camera", "stream"]
MAX_NAMES = 3  # of unreadable files


@dataclass(frozen=True)
class Frame:
    """One picture of a source."""

    index: int  # position in the source: number of frames delivered before, or file position (folder)
    time_s: float  # since the start of the source
    image: Image  # (H, W, 3) uint8 BGR


@dataclass(frozen=True)
class Damage:
    """How much of a source was read and what was wrong with the rest."""

    frames: int = 0  # delivered
    packet_errors: int = 0  # failed reads, undecodable packets and holes in a transport stream
    corrupt_frames: int = 0  # delivered, but marked as damaged by the decoder
    missing_frames: int = 0  # announced by the container but not in it; an estimate if it has no index
    unreadable_files: int = 0  # images of a folder that could not be read
    lost_connections: int = 0  # times that a network stream was lost
    skipped_frames: int = 0  # of a live source: a newer one came before they were asked for; this is no fault
    unreadable_names: tuple[str, ...] = field(default=(), compare=False)  # the first `MAX_NAMES` of them

    @property
    def is_damaged(self) -> bool:
        """True if anything was wrong, so that the results may not cover the whole source."""
        return any(self.faults().values())

    def faults(self) -> dict[str, int]:
        """The counts of what was wrong."""
        return {name: count for name, count in self.to_dict().items() if name not in ("frames", "skipped_frames")}

    def to_dict(self) -> dict[str, int]:
        """The counts."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "unreadable_names"}

    def __str__(self) -> str:
        counts = {"frames read": self.frames, **{name: count for name, count in self.faults().items() if count}}
        text = ", ".join(f"{count} {_counted(name, count)}" for name, count in counts.items())
        if not self.unreadable_names:
            return text
        others = ["..."] if self.unreadable_files > len(self.unreadable_names) else []
        return f"{text} ({', '.join([*self.unreadable_names, *others])})"


def _counted(name: str, count: int) -> str:
    """`packet_errors` -> `packet errors`, or `packet error` if `count` is 1."""
    words = name.replace("_", " ")
    return words.replace("frames", "frame").replace("errors", "error").replace("files", "file").replace(
        "connections", "connection") if count == 1 else words


class FrameSource(ABC):
    """A context manager that can be iterated once.

    Attributes:
        name: short display name without folder, also used in result files.
        width, height: pixels, the same for all frames.
        pixel_aspect: width / height of a pixel as displayed.
        fps: frames per second, None if unknown.
        num_frames: expected number of frames, None if unknown; an estimate, not a guarantee.
        files: the files read, in frame order; empty for live sources.
        damage: counts so far; final once iteration has ended.
        is_closed: no frame will be read any more.
    """

    files: tuple[Path, ...] = ()
    kind: SourceKind
    name: str
    width: int
    height: int
    pixel_aspect: Fraction = Fraction(1)
    fps: float | None
    num_frames: int | None

    def __init__(self) -> None:
        self.damage = Damage()
        self._started = False
        self.is_closed = False
        self._reading = threading.Lock()  # held while a frame is read

    @property
    def is_live(self) -> bool:
        """True for endless sources, which skip frames that are not asked for in time."""
        return self.kind in ("camera", "stream")

    def stop_when(self, is_stopped: Callable[[], bool]) -> None:  # noqa: B027  only live sources keep one waiting
        """End the iteration as soon as `is_stopped` returns True while a live source has no frame to give.

        May be called several times; then any of them ends it.
        """

    def check_unread(self) -> None:
        """Raise InputError if the source has been iterated before, or is closed."""
        if self._started:
            raise InputError(f"{self.name} has been read already; open it again to read it again")
        if self.is_closed:
            raise InputError(f"{self.name} is closed; open it again, and read it before it is closed")

    def __iter__(self) -> Iterator[Frame]:
        """Frames in order.

        Raises:
            InputError: a frame differs in size from the first one, or the source has been iterated before or is closed.
        """
        self.check_unread()
        self._started = True
        frames = self._frames()
        try:
            while True:
                with self._reading:
                    frame = None if self.is_closed else next(frames, None)
                if frame is None:
                    return
                self._count(frames=1)
                yield frame
        finally:
            if self.is_closed:  # `close` could not release it while a frame was being read
                self._release_unless_read()

    @abstractmethod
    def _frames(self) -> Iterator[Frame]:
        """Yield the frames; called once."""

    @abstractmethod
    def _release(self) -> None:
        """Release the file or device; idempotent."""

    def close(self) -> None:
        """End the iteration and release the file or device; idempotent.

        While a thread is reading a frame, it is that thread that releases them: libraries whose memory is freed while
        they work end the process.
        """
        self.is_closed = True
        self._release_unless_read()

    def _count(self, **counts: int) -> None:
        """Add to the damage counts."""
        self.damage = dataclasses.replace(
            self.damage, **{name: getattr(self.damage, name) + count for name, count in counts.items()})

    def _count_unreadable(self, name: str) -> None:
        """Record an unreadable file."""
        self._count(unreadable_files=1)
        names = (*self.damage.unreadable_names, name)[:MAX_NAMES]
        self.damage = dataclasses.replace(self.damage, unreadable_names=names)

    def _check_size(self, image: Image, where: str) -> None:
        height, width = image.shape[:2]
        if (height, width) != (self.height, self.width):
            raise InputError(f"{where} is {width}x{height} but the first one is {self.width}x{self.height}; "
                             "all frames of one source must have the same size: split or rescale it")

    def __enter__(self) -> FrameSource:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()

    def _release_unless_read(self) -> None:
        if self._reading.acquire(blocking=False):
            try:
                self._release()
            finally:
                self._reading.release()
