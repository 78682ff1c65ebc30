"""Ctrl-C, SIGTERM and SIGHUP, by which a user, a system or a terminal ends a process."""
from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

# The terminal was closed, or the connection to it was lost; None on systems that have no such signal. It may come
# twice, from the shell and from the system, so that a second one says nothing new.
HANGUP: int | None = getattr(signal, "SIGHUP", None)
ENDING_SIGNALS: tuple[int, ...] = (signal.SIGTERM,) if HANGUP is None else (signal.SIGTERM, HANGUP)


def free_signals() -> list[int]:
    """Ctrl-C's SIGINT and `ENDING_SIGNALS`, as far as a handler may be set for them.

    None outside the main thread, the only one that receives signals; SIGINT unless it is ignored, as in background jobs
    of a script, or handled by a program in C that runs Python; the others unless they have another handler, as SIGHUP
    has under nohup.
    """
    if threading.current_thread() is not threading.main_thread():
        return []
    interrupt = [signal.SIGINT] if signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, None) else []
    return [*interrupt, *(number for number in ENDING_SIGNALS if signal.getsignal(number) is signal.SIG_DFL)]


@contextlib.contextmanager
def interrupts_put_off() -> Iterator[None]:
    """Put Ctrl-C off to the end of the block, where the system can.

    Processes that start in the block are never interrupted; until they can ignore Ctrl-C, they would print a traceback.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """`ENDING_SIGNALS` raise SystemExit in the block, with code 128 + number, so that temporary files are removed.

    Only the free ones, see `free_signals`.
    """
    handled = [number for number in free_signals() if number != signal.SIGINT]

    def end(number: int, _frame: FrameType | None) -> None:
        for one in handled:
            # So that another one does not interrupt the clean-up. Were it ignored, Python might raise an OSError for
            # one that has just come.
            signal.signal(one, lambda *_: None)
        raise SystemExit(128 + number)

    for number in handled:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)
