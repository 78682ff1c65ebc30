"""The folder a run writes to: names of its files, and whether it may be used."""
from __future__ import annotations

import os
from pathlib import Path

from stmask_deploy.errors import OutputError

from .atomic import cannot_write
from .frame_source import FrameSource


class OutputFolder:
    """Where a run writes.

    Attributes:
        results: JSON Lines, one line a frame, there from the first frame on.
        sequences: YouTube-VIS result list, there when the run has ended.
        video: annotated video, there when the run has ended.
        unfinished_video: the annotated video while it is being written; what a killed run leaves is playable.
        picture: annotated picture, in place of the video where the source is a single image.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results = path / "results.jsonl"
        self.sequences = path / "results.json"
        self.video = path / "video.mp4"
        self.unfinished_video = path / "video.part.mp4"
        self.picture = path / "frame.png"

    @property
    def files(self) -> tuple[Path, ...]:
        """All of them, whether they exist or not."""
        return self.results, self.sequences, self.video, self.unfinished_video, self.picture

    def check(self, overwrite: bool) -> None:
        """Make the folder, and refuse early what could not be written later.

        Raises:
            OutputError: it holds results already and `overwrite` is False, or nothing can be written in it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise OutputError(f"folder {self.path} is not writable; choose another with -o")
        there = [path.name for path in self.files if path.exists()]
        if there and not overwrite:
            raise OutputError(f"{self.path} holds results already ({', '.join(there)}); "
                              "use --overwrite or another folder with -o")

    def clear(self) -> None:
        """Remove the files of an earlier run, so that what lies in the folder afterwards belongs together."""
        for path in self.files:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise cannot_write(path, error) from error


def default_folder(source: FrameSource) -> Path:
    """`runs/<name of the source>`."""
    name = source.name
    if source.kind in ("video", "image"):
        name = Path(name).stem
    return Path("runs") / (name.replace(" ", "-") or source.kind)
