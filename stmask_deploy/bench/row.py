"""One row of the table: a backend, precision and device, and the options of the run."""
from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stmask_deploy.errors import InputError
from stmask_deploy.runtime.backends import check_request
from stmask_deploy.runtime.options import RunOptions
from stmask_deploy.runtime.tracking import MODES

_FORM = "give BACKEND:PRECISION[:DEVICE][,OPTION=VALUE...]"


@dataclass(frozen=True)
class Row:
    """One configuration to compare."""

    backend: str
    precision: str
    device: str = "auto"
    mode: str = "auto"  # of the run timed end to end, see `Model.track`
    options: Mapping[str, Any] = field(default_factory=dict)  # for `RunOptions`

    @classmethod
    def parse(cls, text: str) -> Row:
        """Parse a text such as `openvino:bf16:cpu,mode=latency,detect_every=2`.

        Raises:
            InputError: the text is malformed, or something in it is unknown.
        """
        where, *settings = text.split(",")
        parts = where.split(":")
        if not 2 <= len(parts) <= 3 or not all(parts):
            raise InputError(f"row {text!r} is not known; {_FORM}")
        options: dict[str, Any] = {}
        for setting in settings:
            name, equals, value = setting.partition("=")
            if not equals or name in options:
                raise InputError(f"row {text!r}: {setting!r} is not OPTION=VALUE, or is given twice; {_FORM}")
            options[name] = _value(value)
        device = parts[2] if len(parts) > 2 else "auto"
        row = cls(parts[0], parts[1], device, options.pop("mode", "auto"), options)
        row._check(text)
        return row

    def _check(self, text: str) -> None:
        known = [entry.name for entry in dataclasses.fields(RunOptions)]
        unknown = [name for name in self.options if name not in known]
        if unknown:
            raise InputError(f"row {text!r}: option {unknown[0]} is not known; known: mode, {', '.join(known)}")
        if self.mode not in MODES:
            raise InputError(f"row {text!r}: mode {self.mode} is not known; known: {', '.join(MODES)}")
        try:
            check_request(self.backend, self.device, self.precision, None)
            RunOptions(**self.options)
        except InputError as error:
            raise InputError(f"row {text!r}: {error}") from error

    def __str__(self) -> str:
        where = [self.backend, self.precision, *([self.device] if self.device != "auto" else [])]
        settings = {**({"mode": self.mode} if self.mode != "auto" else {}), **self.options}
        return ",".join([":".join(where), *(f"{name}={value}" for name, value in settings.items())])


@dataclass(frozen=True)
class Job:
    """A row with everything its process needs to run it."""

    row: Row
    bundle: Path
    video: Path
    folder: Path  # for the run's files
    threads: int | None  # CPU threads of the graphs; None leaves the choice to the backend
    warmup: int  # frames before every turn
    frames: int  # per turn, from the start of the video
    draw: bool  # write the annotated video too
    cache: Path | None = None  # folder for what backends compile, see `load`


def _value(text: str) -> Any:
    """Parse numbers; return any other text unchanged."""
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else text
