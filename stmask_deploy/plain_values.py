"""Dataclasses from plain values, as JSON and checkpoints hold them."""
from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from enum import Enum
from types import NoneType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from .errors import InputError
from .wording import MAX_SHOWN, on_one_line, shown

T = TypeVar("T")
MOST_UNKNOWN = 5  # keys that an error message lists


def from_plain(cls: type[T], values: object, where: str) -> T:
    """The instance of a dataclass that a mapping from its fields' names describes.

    A field may be a number, a text, an `Enum` (given by its value), another dataclass (by a mapping), a tuple of these
    (by a list or tuple) or a mapping between them, or be optional (`X | None`).

    Args:
        cls: the dataclass.
        values: the mapping; fields that have a default may be left out.
        where: what it describes, for messages.

    Raises:
        InputError: a key is unknown or missing, or a value has the wrong form. What the constructor raises passes.
    """
    arguments = _arguments(cls, values, where)
    try:
        return cls(**arguments)
    except TypeError as error:  # a field without default is missing
        raise InputError(f"{where}: {error}") from error


def known_values(cls: type, values: object, where: str) -> dict[str, Any]:
    """The items of a mapping, all of whose keys are fields of a dataclass.

    Raises:
        InputError: it is not a mapping, or has other keys.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"{where}: expected a mapping, found {type(values).__name__}")
    known = {field.name for field in dataclasses.fields(cls)}
    unknown = sorted(on_one_line(str(key))[:MAX_SHOWN] for key in set(values) - known)
    if unknown:
        more = " ..." if len(unknown) > MOST_UNKNOWN else ""
        raise InputError(f"{where}: unknown keys {', '.join(unknown[:MOST_UNKNOWN])}{more}; known: "
                         f"{', '.join(sorted(known))}")
    return dict(values)


def is_number(value: object, is_whole: bool = False) -> bool:
    """Whether a value is a finite number (with `is_whole`: an int) in the range of floats; True and False are none."""
    kinds = int if is_whole else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _arguments(cls: type, values: object, where: str) -> dict[str, Any]:
    kinds, arguments = get_type_hints(cls), known_values(cls, values, where)
    for name, value in arguments.items():
        try:
            arguments[name] = _converted(value, kinds[name], name, where)
        except InputError:
            raise
        except (TypeError, ValueError, RecursionError) as error:  # the last: too deep to be shown
            raise InputError(f"{where}: {error}") from error
    return arguments


def _converted(value: Any, kind: Any, name: str, where: str) -> Any:
    if NoneType in get_args(kind):
        if value is None:
            return None
        kind = get_args(kind)[0]
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and not isinstance(value, kind):
        arguments = _arguments(kind, value, f"{where}: {name}")
        try:
            return kind(**arguments)
        except (InputError, TypeError) as error:
            raise InputError(f"{where}: {name}: {error}") from error
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    if not _fits(value, kind):
        raise TypeError(f"{name} has the wrong form: {shown(value)}")
    return _tuples(value)


def _fits(value: Any, kind: Any) -> bool:
    parts = get_args(kind)
    if get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)):
            return False
        kinds = parts[:1] * len(value) if parts[-1] is ... else parts
        return len(value) == len(kinds) and all(map(_fits, value, kinds))
    if get_origin(kind) is Mapping:
        return isinstance(value, Mapping) and all(_fits(key, parts[0]) and _fits(one, parts[1])
                                                  for key, one in value.items())
    if kind in (int, float):
        return is_number(value, is_whole=kind is int)
    return isinstance(value, kind)


def _tuples(value: Any) -> Any:
    """Convert lists, as JSON yields them, to tuples at any depth."""
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value
