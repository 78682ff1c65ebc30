"""JSON objects from a user's file, read key by key, with errors that say where a value is missing or wrong."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..plain_values import is_number
from ..wording import shown

LARGEST_WHOLE = 2 ** 53  # up to here all JSON readers represent integers exactly


class Record:
    """One JSON object and its location in the file.

    Raises:
        InputError: `value` is not an object; in the methods: the key is missing or its value has the wrong type.
    """

    def __init__(self, value: object, where: str) -> None:
        self.where = where
        if not isinstance(value, dict):
            raise self.error(f"expected an object, found {_kind(value)}")
        self._values: dict[str, Any] = value

    def error(self, message: str) -> InputError:
        """The error to raise about this object."""
        return InputError(f"{self.where}: {message}")

    def get(self, key: str) -> Any:
        """The unchecked value; None if missing or null."""
        return self._values.get(key)

    def whole_number(self, key: str, minimum: int = 0, default: int | None = None) -> int:
        """An integer from `minimum` to `LARGEST_WHOLE`; with a default, the key may be missing."""
        value: Any = self._values.get(key, default)
        if not is_number(value, is_whole=True) or not minimum <= value <= LARGEST_WHOLE:
            raise self._unexpected(key, f"a whole number from {minimum} on")
        return int(value)

    def number(self, key: str) -> float:
        """A finite number."""
        value: Any = self._values.get(key)
        if not is_number(value):
            raise self._unexpected(key, "a finite number")
        return float(value)

    def text(self, key: str) -> str:
        """A non-empty string."""
        value = self._values.get(key)
        if not isinstance(value, str) or not value:
            raise self._unexpected(key, "a non-empty string")
        return value

    def array(self, key: str) -> list[Any]:
        """A list."""
        value = self._values.get(key)
        if not isinstance(value, list):
            raise self._unexpected(key, "a list")
        return value

    def records(self, key: str) -> list[Record]:
        """A list of objects."""
        return [Record(value, f"{self.where}: {key}[{row}]") for row, value in enumerate(self.array(key))]

    def _unexpected(self, key: str, expected: str) -> InputError:
        if key not in self._values:
            return self.error(f"{key!r} is missing")
        return self.error(f"expected {key!r} to be {expected}, found {_kind(self._values[key])}")


def read_json(path: Path) -> Any:
    """Parse a JSON file.

    Raises:
        InputError: the file cannot be read or is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a JSON file ({error})") from error


def _kind(value: object) -> str:
    """A short description of an unexpected value, for messages."""
    if isinstance(value, dict | list):
        return {dict: "an object", list: "a list"}[type(value)]
    return "null" if value is None else shown(value)
