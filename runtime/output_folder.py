"""The folder a run writes to: names of its files, and whether it may be used."""
from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from stmask_deploy.atomic import cannot_write, check_folder
from stmask_deploy.errors import InputError, OutputError

from .sources import is_camera


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
        return tuple(path for path in files if os.path.exists(path))

    def check(self, overwrite: bool, inputs: Sequence[Path] = ()) -> None:
        """Refuse early what could not be written later; changes nothing.

        Args:
            overwrite: results of an earlier run may be replaced.
            inputs: files that the run reads, which must stay.

        Raises:
            InputError: the run would replace one of its inputs.
            OutputError: the folder holds results already and `overwrite` is False, or nothing can be written there.
        """
        there = self.existing()
        places = {place: path for path in there if (place := _place(path)) is not None}
        for path in inputs if places else ():
            if (place := _place(path)) in places:
                raise InputError(f"{places[place]} is what the run reads and would be replaced; use another folder "
                                 "with -o")
        if there and not overwrite:
            raise OutputError(f"{self.path} holds results already ({', '.join(path.name for path in there)}); "
                              "use --overwrite or another folder with -o")
        check_folder(self.path)

    def prepare(self, overwrite: bool, inputs: Sequence[Path] = ()) -> None:
        """Make the folder, and clear it of an earlier run, so that the files in it belong together; see `check`."""
        self.check(overwrite, inputs)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for path in self.existing():
                path.unlink()
        except OSError as error:
            raise cannot_write(self.path, error) from error


def _place(path: Path) -> tuple[int, int] | None:
    """What names of the same file have in common; None where there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def folder_name(source: str) -> str:
    """For the results of a source as `sources.open_source` takes it: its name, without suffix and spaces."""
    path = Path(source)
    if is_camera(source):
        name = f"camera {int(source)}"
    else:
        name = path.resolve().name if os.path.isdir(path) else path.stem
    return name.replace(" ", "-")


def folder_names(sources: Sequence[str]) -> list[str]:
    """For each of several sources; those of one name are name, name-2, name-3 and so on in the order given.

    They do not depend on which of the sources can be opened, so that the next run of the same sources uses the same.
    """
    taken: dict[str, None] = {}
    for name in map(folder_name, sources):
        chosen, number = name, 1
        while chosen in taken:
            number += 1
            chosen = f"{name}-{number}"
        taken[chosen] = None
    return list(taken)
