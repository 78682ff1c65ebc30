"""The folder a run writes to: names of its files, and whether it may be used."""
from __future__ import annotations

import os
from pathlib import Path

from stmask_deploy.atomic import cannot_write
from stmask_deploy.errors import OutputError

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

    def existing(self) -> tuple[Path, ...]:
        """The files that are there."""
        files = (self.results, self.sequences, self.video, self.unfinished_video, self.picture)
        return tuple(path for path in files if path.exists())

    def check(self, overwrite: bool) -> None:
        """Refuse early what could not be written later; changes nothing.

        Raises:
            OutputError: the folder holds results already and `overwrite` is False, or nothing can be written there.
        """
        there = self.existing()
        if there and not overwrite:
            raise OutputError(f"{self.path} holds results already ({', '.join(path.name for path in there)}); "
                              "use --overwrite or another folder with -o")
        nearest = self.path.absolute()
        while not nearest.exists():
            nearest = nearest.parent
        if not nearest.is_dir():
            raise OutputError(f"{nearest} is a file and cannot be the output folder; choose another with -o")
        if not os.access(nearest, os.W_OK | os.X_OK):
            raise OutputError(f"folder {nearest} is not writable; choose another with -o")

    def prepare(self, overwrite: bool) -> None:
        """Make the folder, and clear it of an earlier run, so that the files in it belong together.

        Raises:
            OutputError: as for `check`.
        """
        self.check(overwrite)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for path in self.existing():
                path.unlink()
        except OSError as error:
            raise cannot_write(self.path, error) from error


def folder_name(source: FrameSource) -> str:
    """The name of the source, without suffix and spaces."""
    name = Path(source.name).stem if source.kind in ("video", "image") else source.name
    return name.replace(" ", "-")


def untaken(name: str, taken: set[str]) -> str:
    """`name`, or where another source has it name-2, name-3 and so on; it is taken then."""
    chosen, number = name, 1
    while chosen in taken:
        number += 1
        chosen = f"{name}-{number}"
    taken.add(chosen)
    return chosen
