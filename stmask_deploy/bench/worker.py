"""What is measured has a process of its own, works when it is its turn, and sleeps while others have theirs."""
from __future__ import annotations

import multiprocessing
import signal
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from stmask_deploy.errors import StmaskError
from stmask_deploy.runtime.backends import one_line

_TURN, _STOP = "turn", "stop"
_PATIENCE = 10.0  # seconds a process may take to end


class Subject(Protocol):
    """What is measured, inside its process. Everything that leaves it is pickled."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """What is known once it is open."""
        ...

    def turn(self) -> Any:
        """Warm up, then measure once."""
        ...


Opener = Callable[[Any], AbstractContextManager[Subject]]


class Worker:
    """Context manager over the process of one subject.

    Args:
        open_subject: a function of a module, called in the process.
        job: what it is called with.

    Attributes:
        facts: see `Subject.facts`; empty while the subject is not available.
        reason: why it cannot be measured, one line; empty while it can.
        peak_bytes: most memory that was in use at once so far, in the process; None where the system does not tell.
    """

    def __init__(self, open_subject: Opener, job: Any) -> None:
        context = multiprocessing.get_context("spawn")  # nothing of one subject's libraries is in another's process
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(open_subject, job, theirs), daemon=True)
        self._process.start()
        theirs.close()
        self.reason = ""
        self.peak_bytes: int | None = None
        self.facts: Mapping[str, Any] = self._receive() or {}

    def turn(self) -> Any:
        """What the subject measured; None once it cannot go on, and `reason` says why."""
        if self.reason:
            return None
        self._send(_TURN)
        return None if self.reason else self._receive()

    def _send(self, word: str) -> None:
        try:
            self._connection.send(word)
        except OSError:  # it ended while others had their turn
            self.reason = self._ending()

    def _ending(self) -> str:
        self._process.join(_PATIENCE)
        return f"its process ended with exit code {self._process.exitcode}"

    def _receive(self) -> Any:
        try:
            answer = self._connection.recv()
        except (EOFError, OSError):  # in the middle of an answer too
            answer = StmaskError(self._ending())
        if isinstance(answer, Exception):
            self.reason = one_line(answer)
            return None
        value, self.peak_bytes = answer
        return value

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 trace: TracebackType | None) -> None:
        if kind is not None:  # it may be in the middle of a turn
            self._process.terminate()
        elif not self.reason:
            self._send(_STOP)
        self._process.join(_PATIENCE)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._connection.close()


def _serve(open_subject: Opener, job: Any, connection: Connection) -> None:
    # Ctrl-C reaches every process of the terminal; the parent's ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what the subject has opened, folders too, is closed first
    try:
        with open_subject(job) as subject:
            connection.send((subject.facts, peak_memory()))
            while connection.recv() == _TURN:
                connection.send((subject.turn(), peak_memory()))
    except (EOFError, ConnectionError):
        return  # the parent is gone
    except Exception as error:  # whatever it is: this row cannot be measured, the others can
        text = one_line(error) if isinstance(error, (StmaskError, ImportError)) else (
            f"{type(error).__name__}: {one_line(error)}")
        connection.send(StmaskError(text))


def peak_memory() -> int | None:
    """Most bytes of memory that this process has had in use at once; None where the system does not tell.

    Linux's `getrusage` would count what the parent had in use when it started this process.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
