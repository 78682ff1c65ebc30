"""The JSON file that a command leaves of its figures."""
from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .atomic import atomic_file, check_writable
from .errors import InputError


@dataclass
class ReportFile:
    """Where a report is written, or nowhere if `path` is None. Write before printing: the reader's pipe may be closed.

    Raises:
        InputError: (on construction) it would replace one of the `inputs`.
        OutputError: (on construction, before anything is measured, and when it is first written) it cannot be written,
            or it exists and `overwrite` is False.
    """

    path: Path | None
    overwrite: bool  # whether a file that is there may be replaced; True once it is this one's own
    inputs: Sequence[Path] = ()  # files that the command reads; those that do not exist do not matter

    def __post_init__(self) -> None:
        if self.path is None:
            return
        if os.path.exists(self.path) and any(os.path.exists(one) and os.path.samefile(self.path, one)
                                             for one in self.inputs):
            raise InputError(f"{self.path} is an input of this command and would be replaced; use another name")
        check_writable(self.path, overwrite=self.overwrite)

    def write(self, report: Mapping[str, Any]) -> None:
        """Write the report, replacing what was written before.

        Raises:
            OutputError: see above.
            ValueError: a figure is NaN or infinite, which JSON does not have.
        """
        if self.path is None:
            return
        with atomic_file(self.path, overwrite=self.overwrite) as file:
            file.write(json.dumps(report, indent=1, allow_nan=False).encode() + b"\n")
        self.overwrite = True
