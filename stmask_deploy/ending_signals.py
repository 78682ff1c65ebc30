"""SIGTERM and SIGHUP, by which a system or a terminal ends a process."""
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


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """`ENDING_SIGNALS` raise SystemExit in the block, with code 128 + number, so that temporary files are removed.

    Not those that have another handler, as SIGHUP has under nohup, nor outside the main thread.
    """
    is_main = threading.current_thread() is threading.main_thread()
    handled = [number for number in ENDING_SIGNALS if is_main and signal.getsignal(number) is signal.SIG_DFL]

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
