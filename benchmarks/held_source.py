"""A frame source that holds its frames in memory."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from stmask_deploy.runtime.frame_source import Frame, FrameSource
from stmask_deploy.runtime.sources import open_source


class HeldSource(FrameSource):
    """The first frames of another source, in memory.

    Args:
        source: where they come from, open or closed.
        frames: the frames.
    """

    def __init__(self, source: FrameSource, frames: Sequence[Frame]) -> None:
        super().__init__()
        self.kind, self.name, self.fps, self.pixel_aspect = source.kind, source.name, source.fps, source.pixel_aspect
        self.width, self.height, self.num_frames = source.width, source.height, len(frames)
        self._held = frames

    def again(self) -> HeldSource:
        """A new source of the same frames, since a source can be read only once."""
        return HeldSource(self, self._held)

    def _frames(self) -> Iterator[Frame]:
        return iter(self._held)

    def _release(self) -> None:
        """Does nothing: no file is open."""


def hold(video: Path, frames: int) -> HeldSource:
    """The first frames of a video, as a source that can be read once.

    Raises:
        InputError: it cannot be read.
    """
    with open_source(video) as source:
        return HeldSource(source, list(islice(source, frames)))
