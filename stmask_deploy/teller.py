"""Messages of commands that go on with their work when nobody reads them any more."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .errors import OutputError


class Teller:
    """Calls functions that print messages; once nobody reads them any more (`| head`, a full disk), the work goes on
    nevertheless, and `check` tells in the end.
    """

    def __init__(self) -> None:
        self._error: OSError | None = None

    def __call__(self, message: Callable[..., None], *args: Any, **options: Any) -> None:
        """Call `message`."""
        try:
            message(*args, **options)
        except OSError as error:
            self._error = self._error or error

    def check(self) -> None:
        """Raise what the first message ended with that could not be printed.

        Raises:
            OutputError: there was one.
        """
        if self._error is not None:
            raise OutputError(f"messages cannot be written ({self._error.strerror or self._error}); "
                              "the files are complete")
