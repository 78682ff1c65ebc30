"""A source whose frames are in memory."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from stmask_deploy.runtime.frame_source import Frame, FrameSource
from stmask_deploy.runtime.sources import open_source


class HeldSource(FrameSource):
    """The first frames of another source, in memory.

    Args:
        source: that they come from, closed or not.
        frames: of it.
    """

    def __init__(self, source: FrameSource, frames: Sequence[Frame]) -> None:
        super().__init__()
        self.kind, self.name, self.fps, self.pixel_aspect = source.kind, source.name, source.fps, source.pixel_aspect
        self.width, self.height, self.num_frames = source.width, source.height, len(frames)
        self._held = frames

    def again(self) -> HeldSource:
        """The same frames, to be read once more."""
        return HeldSource(self, self._held)

    def _frames(self) -> Iterator[Frame]:
        return iter(self._held)

    def close(self) -> None:
        """Nothing is open."""


def hold(video: Path, frames: int) -> HeldSource:
    """The first frames of a video; to be read once, as every source is.

    Raises:
        InputError: it cannot be read.
    """
    with open_source(video) as source:
        return HeldSource(source, list(islice(source, frames)))
