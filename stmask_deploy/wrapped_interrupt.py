"""Finding the Ctrl-C, or the signal, behind an exception that a library raised in its place."""
from __future__ import annotations


def find_interrupt(error: BaseException | None, handled: BaseException | None,
                   kinds: tuple[type[BaseException], ...] = (KeyboardInterrupt,)) -> BaseException | None:
    """The interrupt that `error` is or was caused by, or None.

    Args:
        error: the exception raised.
        handled: the exception that was already being handled (`sys.exc_info`), which Python sets as the context of
            every later one; it does not count.
        kinds: of exceptions that are interrupts.
    """
    while error is not None and error is not handled and not isinstance(error, kinds):
        error = error.__cause__ or error.__context__
    return error if isinstance(error, kinds) and error is not handled else None


def raise_interrupt(error: BaseException, handled: BaseException | None) -> None:
    """Raise the KeyboardInterrupt, or the SystemExit of a signal, that caused `error`, if any.

    Compiled modules turn it into an ImportError, PyTorch's exporter into a failed export.

    Args:
        error, handled: see `find_interrupt`.
    """
    interrupt = find_interrupt(error, handled, (KeyboardInterrupt, SystemExit))
    if interrupt is not None:
        raise interrupt
