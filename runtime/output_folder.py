"""The folder a run writes to: its file names, and the check whether it may be used."""
from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from stmask_deploy.atomic import cannot_write, check_folder, remove_leftovers
from stmask_deploy.errors import InputError, OutputError
from stmask_deploy.folder_lock import locked_folder


class OutputFolder:
    """The files that a run writes.

    Attributes:
        results: JSON Lines, one line per frame, written during the run.
        sequences: YouTube-VIS result list, written when the run has ended.
        video: annotated video, complete when the run has ended.
        unfinished_video: the annotated video while it is being written; playable even if the run is killed.
        picture: annotated picture, instead of the video if the source is a single image.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results = path / "results.jsonl"
        self.sequences = path / "results.json"
        self.video = path / "video.mp4"
        self.unfinished_video = path / "video.part.mp4"
        self.picture = path / "frame.png"

    def existing(self) -> tuple[Path, ...]:
        """The files that exist, and links that lead nowhere."""
        files = (self.results, self.sequences, self.video, self.unfinished_video, self.picture)
        return tuple(path for path in files if os.path.lexists(path))

    def check(self, overwrite: bool, inputs: Sequence[Path] = ()) -> None:
        """Check early that the run can write its files; changes nothing.

        Args:
            overwrite: whether results of an earlier run may be replaced.
            inputs: files that the run reads, which must not be replaced.

        Raises:
            InputError: the run would replace one of its inputs.
            OutputError: the folder already holds results and `overwrite` is False, another run is writing to it, or it
                is not writable.
        """
        with locked_folder(self.path):
            self._check_files(overwrite, inputs)
        check_folder(self.path)

    @contextmanager
    def claimed(self, overwrite: bool, inputs: Sequence[Path] = ()) -> Iterator[None]:
        """Create the folder, delete the files of an earlier run, and keep other runs out until the block ends.

        The arguments and exceptions are those of `check`, which is called first.
        """
        self.check(overwrite, inputs)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise cannot_write(self.path, error) from error
        with locked_folder(self.path):
            self._check_files(overwrite, inputs)  # again: another run may have ended meanwhile
            try:
                remove_leftovers(self.sequences)
                for path in self.existing():
                    path.unlink()
            except OSError as error:
                raise cannot_write(self.path, error) from error
            yield

    def _check_files(self, overwrite: bool, inputs: Sequence[Path]) -> None:
        there = self.existing()
        places = {place: path for path in there if (place := _place(path)) is not None}
        for path in inputs if places else ():
            if (place := _place(path)) in places:
                raise InputError(f"{places[place]} is an input of this run and would be replaced; use another folder "
                                 "with -o")
        if there and not overwrite:
            raise OutputError(f"{self.path} holds results already ({', '.join(path.name for path in there)}); "
                              "use --overwrite or another folder with -o")


def _place(path: Path) -> tuple[int, int] | None:
    """Device and inode number, the same for all names of a file; None if there is no file."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino
