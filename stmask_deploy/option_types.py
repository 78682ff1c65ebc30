"""Types of command line options."""
from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import click


class FloatRange(click.FloatRange):
    """A number in a range; NaN, which lies outside of no range that click compares it with, is refused too."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See `click.ParamType.convert`."""
        number = float(super().convert(value, param, ctx))
        if math.isnan(number):
            self.fail(f"{value} is not a number", param, ctx)
        return number


class NamedPath(click.Path):
    """A path as a `Path`; an empty name, as of an unset variable, is refused: it would be the working directory."""

    def __init__(self, *, file_okay: bool = True) -> None:
        super().__init__(path_type=Path, file_okay=file_okay)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType.convert`."""
        if value == "":
            self.fail("the name is empty", param, ctx)
        return super().convert(value, param, ctx)


class FrameSize(click.ParamType):  # type: ignore[type-arg]  # not generic before click 8.4
    """An option value `HEIGHTxWIDTH`, converted to (height, width)."""

    name = "HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """See `click.ParamType.convert`."""
        if isinstance(value, tuple):  # click may pass what was converted already
            return value
        match = re.fullmatch(r"(\d{1,5})[xX](\d{1,5})", value.strip())
        if match is None:
            self.fail(f"{value!r} is not HEIGHTxWIDTH, for instance 360x640", param, ctx)
        return int(match[1]), int(match[2])

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """See `click.ParamType.get_metavar`."""
        return self.name
