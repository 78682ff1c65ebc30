"""Errors that end a command with a one-line message and a documented exit code."""


class StmaskError(Exception):
    """A failure whose message says what is wrong and what to do. Exit code 1: a gate was not met or a run failed."""

    exit_code = 1

    def add_note(self, note: str) -> None:
        """Append to the notes, as any exception can from Python 3.11 on."""
        self.__notes__ = [*getattr(self, "__notes__", []), note]

    @property
    def line(self) -> str:
        """The message, followed by any notes (`add_note`)."""
        return "; ".join([str(self), *getattr(self, "__notes__", [])])


class InputError(StmaskError, ValueError):
    """The given checkpoint, bundle, video or option cannot be used. Exit code 2."""

    exit_code = 2


class OutputError(StmaskError, OSError):
    """A result could not be written. Exit code 4."""

    exit_code = 4


class DeviceError(StmaskError, RuntimeError):
    """The requested backend or device is missing, or is not the one actually used. Exit code 5."""

    exit_code = 5


EXIT_DAMAGED_INPUT = 3  # finished, but part of the input could not be read; results cover the rest
EXIT_INTERRUPTED = 130
